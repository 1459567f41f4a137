"""Which KAFKA_* variables become librdkafka properties, and which stay secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline import properties
from archiver_pipeline.errors import SettingsError

NAMES = ["sasl.password", "bootstrap.servers", "ssl.key.pem", "fetch.wait.max.ms", "x"]


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "ssl.certificate.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
    ],
)
def test_whatever_opens_a_door_is_secret(name: str) -> None:
    """Passwords, keys and tokens are never shown."""
    assert properties.is_secret(name)
    assert "hunter2" not in properties.mask("refused: hunter2", {name: "hunter2"})


@pytest.mark.parametrize("name", ["bootstrap.servers", "sasl.username", "security.protocol", "ssl.ca.location"])
def test_what_helps_to_find_a_fault_is_shown(name: str) -> None:
    """An error without the address or the user's name would help nobody."""
    assert not properties.is_secret(name)
    assert properties.mask("at here", {name: "here"}) == "at here"


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
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"}, "KAFKA_SSL_CA_LOCATION is '/nowhere': "),
        ({"security.protocol": "ssl", "ssl.key.pem": "hunter2"}, "KAFKA_SSL_KEY_PEM is ***: "),
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
    secrets = [value for name, value in values.items() if properties.is_secret(name) and value]
    masked = properties.mask(f"{text} {' '.join(secrets)}", values)
    assert not any(value in masked for value in secrets)
    assert masked.split(" ")[1:] == ["***"] * len(secrets) or not secrets
