"""Which KAFKA_* variables become librdkafka properties, and which stay secret."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings import properties, secrets

NAMES = ["sasl.password", "bootstrap.servers", "ssl.key.pem", "fetch.wait.max.ms", "x"]


SECRET = {
    "sasl.kerberos.kinit.cmd",  # may have a password in it
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",  # whatever a provider wants, which may be a token
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    # These are no secrets, but pages of text that would help nobody in an error.
    "https.ca.pem",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    # No property that can be set: objects of librdkafka's own.
    "ssl_ca",
    "ssl_certificate",
    "ssl_engine_callback_data",
    "ssl_key",
}
SHOWN = {
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "https.ca.location",
    "oauthbearer_token_refresh_cb",
    "sasl.kerberos.keytab",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.sub.claim.name",
    "sasl.oauthbearer.token.endpoint.url",  # but for a password in it
    "sasl.username",
    "security.protocol",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.certificate.verify_cb",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.providers",
    "ssl.sigalgs.list",
}
"""Of all properties that have to do with access, which are secret and which help to find a fault."""

ABOUT_ACCESS = re.compile(r"sasl|ssl|https|oauth|passw|passphrase|secret|token|credential|\.pem|security\.|\.key|url")


def library_properties(folder: Path) -> set[str]:
    """Every property of the librdkafka that confluent-kafka brings along, as the library itself lists them."""
    found = sorted(Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs").glob("librdkafka*.so*"))
    if not found:
        pytest.skip("this confluent-kafka has no library of its own")
    library, c = ctypes.CDLL(str(found[0])), ctypes.CDLL(None)
    c.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(c.fopen(str(folder / "properties.md").encode(), b"w"))
    library.rd_kafka_conf_properties_show(file)
    c.fclose(file)
    rows = (folder / "properties.md").read_text().splitlines()
    return {row.split("|")[0].strip() for row in rows if re.match(r"[a-z][\w.]+ +\|", row)}


def test_every_property_about_access_was_thought_of(tmp_path: Path) -> None:
    """A property that a newer librdkafka brings is neither secret nor shown before somebody has decided it."""
    every = {name for name in library_properties(tmp_path) if ABOUT_ACCESS.search(name)}
    assert every == SECRET | SHOWN
    assert {name for name in every if secrets.is_secret(name)} == SECRET


@pytest.mark.parametrize("name", sorted(SECRET))
def test_whatever_opens_a_door_is_secret(name: str) -> None:
    """Passwords, keys and tokens are never shown."""
    assert "hunter2" not in secrets.mask("refused: hunter2", {name: "hunter2"})


@pytest.mark.parametrize(
    ("name", "value", "text", "masked"),
    [
        (
            "sasl.oauthbearer.config",
            "principal=x scope=letmein",
            "Unrecognized: scope=letmein",
            "Unrecognized: scope=***",
        ),
        (
            "ssl.key.pem",
            "-----BEGIN KEY-----\nTUlHSEFnRUFN\nSEFn==\n-----END KEY-----",
            "at TUlHSEFnRUFN, SEFn==",
            "at ***, ***",
        ),
        (
            "sasl.oauthbearer.token.endpoint.url",
            "https://me:letmein@idp:8443/token?key=k3y",
            "no answer from https://me:letmein@idp:8443/token?key=k3y, https://idp:8443/token",
            "no answer from https://***@idp:8443/token?***, https://idp:8443/token",
        ),
    ],
    ids=["config", "key", "url"],
)
def test_a_part_of_a_secret_is_secret(name: str, value: str, text: str, masked: str) -> None:
    """An error may quote a part of a value; of a URL, the address is no secret, but what it holds is."""
    assert secrets.mask(text, {name: value}) == masked


@given(st.text(min_size=1), st.sampled_from(sorted(SECRET)))
def test_a_secret_is_found_in_every_form(secret: str, name: str) -> None:
    """Escaped as in JSON or a repr, quoted as in a URL, in base64: none of them is left."""
    for form in secrets.forms_of(secret):
        assert form not in secrets.mask(f"< {form} >", {name: secret}) or form in "< *** >"


@pytest.mark.parametrize("name", ["bootstrap.servers", "sasl.username", "security.protocol", "ssl.ca.location"])
def test_what_helps_to_find_a_fault_is_shown(name: str) -> None:
    """An error without the address or the user's name would help nobody."""
    assert not secrets.is_secret(name)
    assert secrets.mask("at here", {name: "here"}) == "at here"


def test_a_variable_and_its_property_have_one_name_each() -> None:
    """`KAFKA_SASL_PASSWORD` is `sasl.password`; other variables are none of Kafka's."""
    environment = {"KAFKA_SASL_PASSWORD": "x", "KAFKA_": "y", "MY_KAFKA_X": "z", "HOME": "h", "kafka_x": "l"}
    assert properties.from_environment(environment) == {"sasl.password": "x"}
    for name in NAMES:
        assert properties.from_environment({properties.env_name(name): "v"}) == {name: "v"}


def test_librdkafka_says_itself_what_it_knows() -> None:
    """Any property of its version works; what it does not know is named, however much of it there is."""
    candidates = {"client.id": "a", "port": "1", "service.host": "b", "linger.ms": "5", "9092.tcp.addr": "c"}
    accepted, unknown = properties.known(candidates)
    assert accepted == {"client.id": "a", "linger.ms": "5"}
    assert sorted(unknown) == ["9092.tcp.addr", "port", "service.host"]


@pytest.mark.parametrize(
    ("given_properties", "line"),
    [
        ({"security.protocol": "x"}, "KAFKA_SECURITY_PROTOCOL is 'x': "),
        ({"fetch.wait.max.ms": "soon"}, "KAFKA_FETCH_WAIT_MAX_MS is 'soon': "),
        ({"fetch.wait.max.ms": "-5"}, "KAFKA_FETCH_WAIT_MAX_MS is '-5': "),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "x"}, "KAFKA_SASL_MECHANISM is 'x': "),
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"}, "KAFKA_SSL_CA_LOCATION is '/nowhere': there is"),
        ({"security.protocol": "ssl", "ssl.key.pem": "hunter2"}, "KAFKA_SSL_KEY_PEM is ***: it holds no private key"),
        (
            {
                "security.protocol": "sasl_ssl",
                "sasl.mechanism": "OAUTHBEARER",
                "https.ca.location": "/nowhere",
                "sasl.oauthbearer.method": "oidc",
            },
            "KAFKA_HTTPS_CA_LOCATION is '/nowhere': there is no such file",
        ),
    ],
)
def test_a_value_that_librdkafka_refuses_is_named(given_properties: dict[str, str], line: str) -> None:
    """One line with the variable and the value, unless that is secret."""
    with pytest.raises(SettingsError) as refusal:
        properties.known({"bootstrap.servers": "localhost:1", **given_properties})
    assert str(refusal.value).startswith(line)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_archivers_own_properties_are_real_ones() -> None:
    """A property that librdkafka no longer has would be guarded in vain."""
    values = {"group.id": "x", "auto.offset.reset": "error", "isolation.level": "read_committed"}
    accepted, unknown = properties.known({**dict.fromkeys(properties.OWN, "false"), **values})
    assert (accepted.keys(), unknown) == (properties.OWN.keys(), ())


@given(st.text("abc"), st.dictionaries(st.sampled_from(NAMES), st.text("abc"), max_size=5))
def test_no_secret_value_is_left_in_a_masked_text(text: str, values: dict[str, str]) -> None:
    """Wherever it stands, and however often; one that holds another is not left in part either."""
    hidden = [value for name, value in values.items() if secrets.is_secret(name) and value]
    masked = secrets.mask(f"{text} {' '.join(hidden)}", values)
    assert not any(value in masked for value in hidden)
    assert masked.split(" ")[1:] == ["***"] * len(hidden) or not hidden


def test_a_login_without_a_mechanism_is_told_by_its_setting() -> None:
    """librdkafka would have it recompiled for Kerberos, which nobody asked for."""
    with pytest.raises(SettingsError, match=r"^KAFKA_SASL_MECHANISM is not set: .* SCRAM-SHA-512"):
        properties.known({"security.protocol": "SASL_SSL"})
