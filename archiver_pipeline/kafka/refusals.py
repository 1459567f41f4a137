"""What brokers and librdkafka say where a client is not let in or lacks an ACL: what it means, and what to check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

NO_LOGIN = {"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE"}
NO_ACL = {
    "TOPIC_AUTHORIZATION_FAILED": "topic",
    "GROUP_AUTHORIZATION_FAILED": "group",
    "CLUSTER_AUTHORIZATION_FAILED": "cluster",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "transactional id",
}
"""Error codes of a missing ACL, and what each is about."""

NO_GROUP = "GROUP_AUTHORIZATION_FAILED"
"""librdkafka looks for the coordinator of `group.id` unasked, and complains. The archiver has no use for one."""

_SETTING_UP = r"SSL_HANDSHAKE|APIVERSION_QUERY|AUTH_\w+|UP"
_CLOSED = re.compile(rf"[Dd]isconnected.*\(after \d{{1,3}}ms in state (?:{_SETTING_UP})")
_NOISE = re.compile(
    r" \(after \d+ms (?:[^()]|\([^()]*\))*\)|error:[0-9A-F]+:SSL routines::(ssl/tls )?|: receive 0 after POLLIN"
)
_BROKER = re.compile(r"^(\S+)/(?:bootstrap|\d+): ")
"""A broker has two names: that of the settings, and the one with its number that it gave itself."""

_CONNECT = re.compile(r"^(\S+?)(/\S+: )Connect to ipv[46]#\1 failed: ")
_ALL_DOWN = re.compile(
    r"\d+/\d+ brokers are down|Failed to get metadata: Local: Broker transport failure|Timed out waiting for controller"
)
_DISTRUST = re.compile(r"certificate verify failed(: broker certificate[^;]*)?")
_LOGIN = re.compile("SASL authentication error|OAUTHBEARER token")
_HINTS = (
    (
        re.compile("^OAUTHBEARER"),
        "Check that the endpoint in KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is up, and the other settings "
        "KAFKA_SASL_OAUTHBEARER_*; KAFKA_HTTPS_CA_LOCATION has the authority of its certificate",
    ),
    (
        re.compile("mechanism handshake failed"),
        "Check KAFKA_SASL_MECHANISM, and that KAFKA_BOOTSTRAP_SERVERS names a listener that takes it",
    ),
    (
        re.compile("mismatch"),
        "Check the host in KAFKA_BOOTSTRAP_SERVERS, and what the broker advertises: its certificate has to name them",
    ),
    (
        re.compile("certificate has expired"),
        "Tell those who run the broker: its certificate has to be renewed",
    ),
    (
        re.compile("certificate verify failed"),
        "Check KAFKA_SSL_CA_LOCATION: it has to hold the authority that signed the broker's certificate",
    ),
    (
        re.compile("alert"),
        "Check KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION: the broker wants a certificate that has not "
        "expired, signed by an authority that it trusts",
    ),
    (
        re.compile("SSL|[Dd]isconnected"),
        "Check KAFKA_SECURITY_PROTOCOL and the port in KAFKA_BOOTSTRAP_SERVERS: a listener closes connections "
        "that are not of its own protocol",
    ),
    (
        re.compile(""),
        "Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
    ),
)


def is_refusal(error: Any) -> bool:
    """Whether an error says that the client is not let in, so that to wait any longer is of no use."""
    text = error.str()
    return error.name() in NO_LOGIN or bool(
        re.search("certificate verify failed|SSL routines.*alert|wrong version", text)
    )


def is_lasting(error: Any) -> bool:
    """Whether an error stands for some time, although librdkafka says it but once in ten seconds."""
    return "OAUTHBEARER token" in error.str()


def is_hangup(error: Any) -> bool:
    """Whether the broker closed a connection as soon as it was there: a listener of another protocol does, over and
    over, and so does a proxy whose broker is down."""
    return not is_refusal(error) and bool(_CLOSED.search(error.str()))


def is_forbidden(error: Any) -> bool:
    """Whether an error says that an ACL is missing."""
    return error.name() in NO_ACL


def said_by(errors: Iterable[Any]) -> str:
    """What librdkafka's errors say, each sentence once for an address, without how long it took and without numbers of
    OpenSSL."""
    texts: dict[str, str] = {}
    for error in errors:
        text = _CONNECT.sub(r"\1\2", _NOISE.sub("", error.str()))
        texts.setdefault(_BROKER.sub(r"\1: ", text), text)
    # These are said beside the reason, which is what each broker is down for.
    return "; ".join([text for text in texts.values() if not _ALL_DOWN.fullmatch(text)] or texts.values())


def is_distrust(text: str) -> bool:
    """Whether the client does not trust the broker's certificate."""
    return _DISTRUST.search(text) is not None


def distrust(text: str, why: str) -> str:
    """The same with the reason, in the place of librdkafka's guess at it."""
    return _DISTRUST.sub(lambda _: f"certificate verify failed: {why}", text)


def hint(text: str, properties: Mapping[str, str]) -> str:
    """What to check where a client of these properties was not let in."""
    mechanism = properties.get("sasl.mechanisms", properties.get("sasl.mechanism", ""))
    about = f"{mechanism.upper()} {text}" if _LOGIN.search(text) else text
    return next(advice for pattern, advice in _HINTS if pattern.search(about))


def lacking(acls: Iterable[str]) -> str:
    """Say which ACLs are missing: `the credentials lack the ACL Read on topic orders`."""
    names = list(dict.fromkeys(acls))
    unknown = any(name.startswith("Describe on topic") for name in names)
    why = ", and without Describe Kafka does not tell whether a topic exists" if unknown else ""
    return f"the credentials lack the ACL{'s' * (len(names) > 1)} {', '.join(names)}{why}"


def grant(acls: Iterable[str], properties: Mapping[str, str]) -> str:
    """How to grant ACLs, each as `Read on topic orders`, with Kafka's own tool."""
    user = properties.get("sasl.username") or "…"
    wanted: dict[str, list[str]] = {}
    for acl in dict.fromkeys(acls):
        operation, _, resource = acl.partition(" on ")
        kind, _, name = resource.removeprefix("the ").rpartition(" ")
        target = f"--{kind.replace(' ', '-')} {name}" if kind else "--cluster"
        wanted.setdefault(target, []).append(f"--operation {operation}")
    each = [
        f"kafka-acls.sh --add --allow-principal User:{user} {' '.join(operations)} {target}"
        for target, operations in wanted.items()
    ]
    return f"Grant it, for example by {'; '.join(each)}"
