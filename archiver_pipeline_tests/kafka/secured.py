"""A real broker with TLS, every way to log in that Kafka has but Kerberos, and access by ACLs alone.

Its plain listener belongs to the tests, for whom nothing is forbidden: they make topics, users and ACLs through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from archiver_pipeline_tests.kafka.broker import SHORT_LIVED, KafkaBroker
from archiver_pipeline_tests.kafka.keys import Authority, TokenSigner
from archiver_pipeline_tests.kafka.tokens import AUDIENCE
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

SASL, MTLS, UNSIGNED = "SASL", "MTLS", "UNSIGNED"
"""The listeners: TLS and a login; TLS and a certificate of the client; no TLS, and tokens that nobody has signed."""

PLAIN_USER = "plainuser"
_MODULES = "org.apache.kafka.common.security"
_OAUTH = f"{_MODULES}.oauthbearer"
_KINDS = {"Topic": ResourceType.TOPIC, "Group": ResourceType.GROUP, "TransactionalId": ResourceType.TRANSACTIONAL_ID}
_KINDS["Cluster"] = ResourceType.BROKER  # As librdkafka names it; in Kafka both are 4.


class SecuredBroker(KafkaBroker):
    """A broker that lets in whom it knows, and to what ACLs allow.

    Attributes:
        authority: has signed the broker's certificate, which is for 127.0.0.1 and no other name.
        tokens: signs tokens that the broker trusts.
    """

    def __init__(self, data: Path, plain_password: str) -> None:
        """Make keys and choose ports.

        Args:
            data: where all goes.
            plain_password: of `PLAIN_USER`, for SASL/PLAIN.
        """
        self.authority = Authority(data / "keys")
        self.tokens = TokenSigner(data / "keys")
        certificate, key = self.authority.sign("broker", hosts="IP:127.0.0.1")
        store = data / "keys" / "broker.store.pem"
        store.write_text(key.read_text() + certificate.read_text())
        super().__init__(
            data,
            properties={
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(store),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.authority.certificate),
                f"listener.name.{MTLS.lower()}.ssl.client.auth": "required",
                f"listener.name.{MTLS.lower()}.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
                **_logins(plain_password),
                "sasl.oauthbearer.jwks.endpoint.url": self.tokens.key_set.as_uri(),
                "sasl.oauthbearer.expected.audience": AUDIENCE,
            },
            listeners={SASL: "SASL_SSL", MTLS: "SSL", UNSIGNED: "SASL_PLAINTEXT"},
            options=(
                *SHORT_LIVED,
                f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.tokens.key_set.as_uri()}",
            ),
        )

    def add_user(self, name: str, password: str) -> None:
        """Let a user log in by SCRAM, with either hash, from now on and with no other password."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            # The least that Kafka takes: with more the broker would be busy hashing.
            info = ScramCredentialInfo(mechanism, 4096)
            added = UserScramCredentialUpsertion(name, info, password.encode())
            for future in self._admin.alter_user_scram_credentials([added]).values():
                future.result(LIMIT_SECONDS)
        wait_for(f"the user {name}", lambda: self._knows(name))

    def allow(self, user: str, *rules: str) -> None:
        """Grant ACLs, each as `Read on Topic orders`, or `Read on Topic orders-*` for all that begin so."""
        bindings = [_binding(user, rule) for rule in rules]
        for future in self._admin.create_acls(bindings).values() if bindings else ():
            future.result(LIMIT_SECONDS)
        for binding in bindings:
            wait_for(f"the ACL {binding}", partial(self._has, binding))

    def forbid(self, user: str, *rules: str) -> None:
        """Take ACLs away again."""
        bindings = [_binding(user, rule) for rule in rules]
        for future in self._admin.delete_acls([_as_filter(binding) for binding in bindings]).values():
            assert future.result(LIMIT_SECONDS), "there is no such ACL"
        for binding in bindings:
            wait_for(f"the end of the ACL {binding}", partial(self._lacks, binding))

    def scram(self, user: str, password: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """The properties of a client that logs in by SCRAM over TLS."""
        return {**self._login(mechanism), "sasl.username": user, "sasl.password": password}

    def plain(self, password: str) -> dict[str, str]:
        """The properties of a client that logs in by PLAIN over TLS, as `PLAIN_USER`."""
        return {**self._login("PLAIN"), "sasl.username": PLAIN_USER, "sasl.password": password}

    def mutual(self, certificate: Path, key: Path) -> dict[str, str]:
        """The properties of a client that shows a certificate, whose common name is its user."""
        files = {"ssl.certificate.location": str(certificate), "ssl.key.location": str(key)}
        return {**self._tls(MTLS), "security.protocol": "ssl", **files}

    def tokens_of(self, url: str, client: str, secret: str) -> dict[str, str]:
        """The properties of a client that gets its token from an endpoint; its user is the client's name."""
        return {
            **self._login("OAUTHBEARER"),
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": url,
            "sasl.oauthbearer.client.id": client,
            "sasl.oauthbearer.client.secret": secret,
        }

    def unsigned(self, user: str) -> dict[str, str]:
        """The properties of a client that makes its token itself, which nobody has signed."""
        return {
            "bootstrap.servers": self.addresses[UNSIGNED],
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "OAUTHBEARER",
            "enable.sasl.oauthbearer.unsecure.jwt": "true",
            "sasl.oauthbearer.config": f"principal={user} lifeSeconds=600",
        }

    def _tls(self, listener: str) -> dict[str, str]:
        return {"bootstrap.servers": self.addresses[listener], "ssl.ca.location": str(self.authority.certificate)}

    def _login(self, mechanism: str) -> dict[str, str]:
        return {**self._tls(SASL), "security.protocol": "sasl_ssl", "sasl.mechanism": mechanism}

    def _knows(self, user: str) -> bool:
        try:
            asked = self._admin.describe_user_scram_credentials([user])
            assert isinstance(asked, dict)
            found = asked[user].result(LIMIT_SECONDS)
        except KafkaException:
            return False
        return len(found.scram_credential_infos) == 2

    def _lacks(self, binding: AclBinding) -> bool:
        return not self._has(binding)

    def _has(self, binding: AclBinding) -> bool:
        return bool(self._admin.describe_acls(_as_filter(binding)).result(LIMIT_SECONDS))

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})


def _logins(plain_password: str) -> Mapping[str, str]:
    """What each listener asks for."""
    sasl, unsigned = f"listener.name.{SASL.lower()}", f"listener.name.{UNSIGNED.lower()}"
    # Quoted once for JAAS and once for the properties file, which is Latin-1 but for what is escaped.
    quoted = plain_password.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")
    quoted = "".join(letter if letter.isascii() else f"\\u{ord(letter):04x}" for letter in quoted)
    return {
        f"{sasl}.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER",
        f"{sasl}.scram-sha-256.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{sasl}.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{sasl}.plain.sasl.jaas.config": f'{_MODULES}.plain.PlainLoginModule required user_{PLAIN_USER}="{quoted}";',
        f"{sasl}.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
        f"{sasl}.oauthbearer.sasl.server.callback.handler.class": f"{_OAUTH}.OAuthBearerValidatorCallbackHandler",
        f"{unsigned}.sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{unsigned}.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
        f"{unsigned}.oauthbearer.sasl.server.callback.handler.class": (
            f"{_OAUTH}.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        ),
    }


def _binding(user: str, rule: str) -> AclBinding:
    operation, _, what = rule.partition(" on ")
    kind, _, name = what.partition(" ")
    pattern = ResourcePatternType.PREFIXED if name.endswith("*") and len(name) > 1 else ResourcePatternType.LITERAL
    return AclBinding(
        _KINDS[kind],
        name.removesuffix("*") if pattern is ResourcePatternType.PREFIXED else name or "kafka-cluster",
        pattern,
        f"User:{user}",
        "*",
        AclOperation[_snake(operation)],
        AclPermissionType.ALLOW,
    )


def _as_filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _snake(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() and at else letter for at, letter in enumerate(name)).upper()
