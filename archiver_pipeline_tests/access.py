"""Ways to log in to a secured broker, right and wrong ones: what a client is given, and what its user is to see."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from archiver_pipeline_tests.kafka.keys import Authority, encrypted, openssl
from archiver_pipeline_tests.kafka.secured import MTLS, PLAIN_USER, SASL, UNSIGNED, SecuredBroker
from archiver_pipeline_tests.kafka.tokens import TokenEndpoint
from archiver_pipeline_tests.processes import free_port

Properties = dict[str, str]


@dataclass(frozen=True)
class Access:
    """A broker, and a user with all that it takes to log in as that one.

    Attributes:
        broker: the broker.
        folder: for keys.
        plain_password: of `PLAIN_USER`.
        endpoint: gives out tokens.
        user: the user, whom nothing is allowed yet.
        password: its password.
    """

    broker: SecuredBroker
    folder: Path
    plain_password: str
    endpoint: TokenEndpoint
    user: str
    password: str

    def right(self) -> dict[str, Callable[[], Properties]]:
        """The properties for each way to log in; the user is `user`, but for PLAIN."""
        broker, user = self.broker, self.user
        return {
            "SCRAM-SHA-512": lambda: broker.scram(user, self.password),
            "SCRAM-SHA-256": lambda: broker.scram(user, self.password, "SCRAM-SHA-256"),
            "PLAIN": lambda: broker.plain(self.plain_password),
            "certificate": lambda: broker.mutual(*broker.authority.sign(user)),
            "certificate with a locked key": lambda: self._locked(*broker.authority.sign(user)),
            "certificate in a store": lambda: self._store(*broker.authority.sign(user)),
            "token of an endpoint": lambda: broker.tokens_of(self.endpoint.url, user, self.password),
            "token that nobody signed": lambda: broker.unsigned(user),
        }

    def _locked(self, certificate: Path, key: Path) -> Properties:
        return {**self.broker.mutual(certificate, encrypted(key, self.password)), "ssl.key.password": self.password}

    def _store(self, certificate: Path, key: Path) -> Properties:
        store = key.with_suffix(".p12")
        pair, out = ("-inkey", str(key), "-in", str(certificate)), ("-out", str(store), "-passout", "stdin")
        openssl("pkcs12", "-export", *pair, *out, data=self.password.encode())
        kept = {name: value for name, value in self.broker.mutual(certificate, key).items() if "key" not in name}
        del kept["ssl.certificate.location"]
        return {**kept, "ssl.keystore.location": str(store), "ssl.keystore.password": self.password}

    def user_of(self, way: str) -> str:
        """The user of a way to log in."""
        return PLAIN_USER if way == "PLAIN" else self.user

    def wrong(self) -> dict[str, Refusal]:
        """Ways that are refused."""
        broker, scram = self.broker, self.broker.scram(self.user, self.password)
        token = broker.tokens_of(self.endpoint.url, self.user, self.password)
        stranger = Authority(self.folder / "strangers", "strangers")
        certificate, key = broker.authority.sign(self.user)
        mutual = broker.mutual(certificate, key)
        login = "invalid credentials.*Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"
        trust = (
            "certificate verify failed: .*signed certificate.*Check KAFKA_SSL_CA_LOCATION|unable to get .*CA_LOCATION"
        )
        protocol = "Check KAFKA_SECURITY_PROTOCOL and the port in KAFKA_BOOTSTRAP_SERVERS"
        client = "alert.*Check KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION"
        tokens = "Check that the endpoint in KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is up"
        tls = {name: scram[name] for name in ("bootstrap.servers", "ssl.ca.location")}
        return {
            "wrong password": Refusal({**scram, "sasl.password": "wrong-password"}, login),
            "unknown user": Refusal({**scram, "sasl.username": "nobody"}, login),
            "wrong password, PLAIN": Refusal(
                broker.plain("wrong-password"), "Invalid username or password.*KAFKA_SASL_PA"
            ),
            "a mechanism that the user has not": Refusal(
                {**scram, "sasl.mechanism": "PLAIN"}, "Invalid username.*MECHANISM"
            ),
            "a mechanism that the listener has not": Refusal(
                {**scram, "bootstrap.servers": broker.addresses[UNSIGNED], "security.protocol": "sasl_plaintext"},
                "supported mechanisms: OAUTHBEARER.*Check KAFKA_SASL_MECHANISM",
            ),
            "no TLS, to a listener with TLS": Refusal({"bootstrap.servers": broker.addresses[SASL]}, protocol),
            "login without TLS, to a listener with TLS": Refusal(
                {**scram, "security.protocol": "sasl_plaintext"}, protocol
            ),
            "TLS, to a listener without": Refusal({**scram, "bootstrap.servers": broker.bootstrap_servers}, protocol),
            "TLS without a login, to a listener with one": Refusal({**tls, "security.protocol": "ssl"}, protocol),
            "a login, to a listener without one": Refusal(
                {**scram, "bootstrap.servers": broker.bootstrap_servers, "security.protocol": "sasl_plaintext"},
                "Check KAFKA_SASL_MECHANISM",
            ),
            "an authority that did not sign": Refusal({**scram, "ssl.ca.location": str(stranger.certificate)}, trust),
            "another host name": Refusal(
                {**scram, "bootstrap.servers": scram["bootstrap.servers"].replace("127.0.0.1", "localhost")},
                "certificate is not valid for 'localhost'. Check the host in KAFKA_BOOTSTRAP_SERVERS",
            ),
            "no client certificate": Refusal({**tls, **_address(broker, MTLS), "security.protocol": "ssl"}, client),
            "an expired client certificate": Refusal(
                broker.mutual(*broker.authority.sign(f"{self.user}-expired", expired=True)), client
            ),
            "a client certificate of a stranger": Refusal(
                {**broker.mutual(*stranger.sign(self.user)), "ssl.ca.location": mutual["ssl.ca.location"]}, client
            ),
            "a token that nobody signed": Refusal(
                {**broker.unsigned(self.user), **tls, "security.protocol": "sasl_ssl"}, f"invalid_token.*{tokens}"
            ),
            "wrong client secret": Refusal({**token, "sasl.oauthbearer.client.secret": "wrong-secret"}, tokens),
            "token endpoint down": Refusal(
                {**token, "sasl.oauthbearer.token.endpoint.url": f"http://127.0.0.1:{free_port()}/token"}, tokens
            ),
        }


@dataclass(frozen=True)
class Refusal:
    """A way to log in that is refused, and what the error has to say, as a regex."""

    properties: Properties = field(repr=False)
    says: str


@contextmanager
def access_to(broker: SecuredBroker, folder: Path, plain_password: str) -> Iterator[Access]:
    """A new user of a broker."""
    user, password = f"user-{uuid.uuid4().hex[:8]}", f"pass-{uuid.uuid4().hex}"
    with TokenEndpoint(broker.tokens) as endpoint:
        endpoint.clients[user] = password
        broker.add_user(user, password)
        yield Access(broker, folder, plain_password, endpoint, user, password)


def _address(broker: SecuredBroker, listener: str) -> Properties:
    return {"bootstrap.servers": broker.addresses[listener]}
