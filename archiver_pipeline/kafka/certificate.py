"""Why a broker's certificate is not trusted: librdkafka does not tell a wrong host name from a wrong authority."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping

_SECONDS = 2.0
_ADDRESS = re.compile(r"\w+://\[?([^/\]]+?)\]?:(\d+)/")


def fault(text: str, properties: Mapping[str, str]) -> str:
    """Shake hands once more with the broker that an error names, and return what is wrong with its certificate.

    Args:
        text: what librdkafka said.
        properties: those of the client.

    Returns:
        A phrase such as `Hostname mismatch, certificate is not valid for 'broker'`; nothing where it cannot be told.
    """
    found = _ADDRESS.search(text)
    if found is None:
        return ""
    host, port = found.groups()
    try:
        context = ssl.create_default_context(
            cafile=properties.get("ssl.ca.location"), cadata=properties.get("ssl.ca.pem")
        )
        context.check_hostname = properties.get("ssl.endpoint.identification.algorithm", "https") != "none"
        with (
            socket.create_connection((host, int(port)), _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message).rstrip(".")
    except (OSError, ValueError):
        return ""
