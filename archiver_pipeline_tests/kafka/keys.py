"""Keys, certificates and signed tokens for a secured broker and its clients, made with the command `openssl`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archiver_pipeline_tests.kafka.jars import BrokerError, ToolMissing

KEY_ID = "test-key"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """Run `openssl` and return what it prints.

    Raises:
        ToolMissing: it is not installed.
        BrokerError: it failed.
    """
    program = shutil.which("openssl")
    if program is None:
        raise ToolMissing("openssl is missing: the tests on a secured Kafka make their certificates with it")
    done = subprocess.run([program, *arguments], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise BrokerError(f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout


class Authority:
    """A certificate authority in a folder of its own, which signs keys that it makes.

    Attributes:
        certificate: its own certificate, for those who are to trust it.
    """

    def __init__(self, folder: Path, name: str = "test-authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        out = ("-keyout", str(self._key), "-out", str(self.certificate))
        openssl("req", "-x509", *_EC, "-nodes", *out, "-days", "2", "-subj", f"/CN={name}")

    def sign(self, name: str, *, hosts: str = "", expired: bool = False) -> tuple[Path, Path]:
        """Make a key and a certificate for a name, and return both paths.

        Args:
            name: the common name.
            hosts: what the certificate is for, such as `IP:127.0.0.1`.
            expired: whether its time is over.
        """
        key, request, certificate = (self._folder / f"{name}.{ending}" for ending in ("key", "csr", "pem"))
        openssl("req", "-new", *_EC, "-nodes", "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n" if hosts else "")
        signer = ("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial")
        # A validity that ends before it begins is over already.
        days = "-1" if expired else "2"
        out = ("-extfile", str(extensions), "-out", str(certificate), "-days", days)
        openssl("x509", "-req", "-in", str(request), *signer, *out)
        return certificate, key


def encrypted(key: Path, password: str) -> Path:
    """A copy of a key under a password."""
    path = key.with_suffix(".encrypted")
    openssl("pkcs8", "-topk8", "-in", str(key), "-out", str(path), "-passout", "stdin", data=password.encode())
    return path


class TokenSigner:
    """Signs JSON web tokens (RFC 7519) with a key whose public part lies in a key set (RFC 7517) for the broker."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._key = folder / "tokens.key"
        self.key_set = folder / "tokens.json"
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(self._key))
        modulus = openssl("rsa", "-in", str(self._key), "-noout", "-modulus").decode().strip().partition("=")[2]
        key = {
            "kty": "RSA",
            "kid": KEY_ID,
            "use": "sig",
            "alg": "RS256",
            "n": _text(bytes.fromhex(modulus)),
            "e": "AQAB",
        }
        self.key_set.write_text(json.dumps({"keys": [key]}))

    def token(self, subject: str, seconds: float = 600, **more: Any) -> str:
        """A token for a subject, which is good for so long."""
        now = int(time.time())
        claims: Mapping[str, Any] = {"sub": subject, "iat": now, "exp": now + int(seconds), "scope": "kafka", **more}
        parts = ({"alg": "RS256", "typ": "JWT", "kid": KEY_ID}, claims)
        body = ".".join(_text(json.dumps(part).encode()) for part in parts)
        signature = openssl("dgst", "-sha256", "-sign", str(self._key), data=body.encode())
        return f"{body}.{_text(signature)}"


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
