"""A registry that is down, refuses, fails or does not know: the batch waits, says so, and nothing is lost."""

from __future__ import annotations

import base64
import json
import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline.envelope import MALFORMED
from archiver_pipeline.errors import RegistryError, RegistryUnavailable, SchemaUnknown, SchemaUnusable
from archiver_pipeline.formats import bounded
from archiver_pipeline.formats.waits import Wait, Waits
from archiver_pipeline.formats.wire import HEADER
from archiver_pipeline.status import status
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.search_proxy import Answer, Answered, Asked, Forward, proxy
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.listening import QuietHandler, listening
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.registry.apicurio import Apicurio
from archiver_pipeline_tests.registry.certificates import PASSWORD, Certificates
from archiver_pipeline_tests.registry.written import avro, decoded_settings, framed, record, register
from archiver_pipeline_tests.samples import FIRST_MS
from archiver_pipeline_tests.waiting import wait_for

ORDER = record("Order", type="string", n="int")
UNKNOWN = 2**31


def order(schema: int, n: int) -> bytes:
    """The payload of an order."""
    return framed(schema, avro(json.loads(json.dumps(ORDER)), {"type": "order", "n": n}))


def send(bootstrap_servers: str, topic: str, *payloads: bytes, **more: Any) -> None:
    """Produce payloads to the one partition of a topic."""
    produce(bootstrap_servers, topic, [Sent(payload, timestamp_ms=FIRST_MS, **more) for payload in payloads])


def types(archived: Archived, topic: str) -> list[str]:
    """The type of each message, by offset."""
    return [row[0] for row in archived.sql(f"SELECT type FROM messages WHERE topic = '{topic}' ORDER BY \"offset\"")]


def waits(archived: Archived) -> list[Wait]:
    """What is waited for, as `archiver status` has it."""
    return list(status(archived.settings).waits)


def test_a_registry_that_is_down(bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio) -> None:
    """Nothing is committed, the error and the status say what is waited for and what to do, and once the registry is up
    every message is archived with its type."""
    create_topic(bootstrap_servers, topic_name)
    schema = register(registry.url, topic_name, ORDER)
    send(bootstrap_servers, topic_name, *(order(schema, n) for n in range(5)))
    address = f"http://{HOST}:{free_ports(1)[0]}"
    user = address.replace("//", "//archiver:p%40ss@")
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(user))
    with pytest.raises(RegistryUnavailable) as error:
        archived.run()
    text = str(error.value)
    assert text.startswith(f"{address} gave no schema {schema}: ")
    assert f"(topic {topic_name}, partition 0, offsets [0, 1))" in text
    assert text.endswith(
        "Check ARCHIVER_REGISTRY_URL and that the registry is up; nothing is lost, the next run tries again"
    )
    assert "p@ss" not in text
    assert archived.archiver().archive.ledger().committed == {}
    (wait,) = waits(archived)
    assert (wait.topic, wait.partition, wait.offset, wait.schema) == (topic_name, 0, 0, str(schema))
    assert wait.registry == address
    assert f"{topic_name}/0 waits since {wait.since} at offset 0 for schema {schema} of {address}" in str(wait)
    with pytest.raises(RegistryUnavailable):
        archived.run()
    assert [each.since for each in waits(archived)] == [wait.since]
    up = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(registry.url))
    up.run()
    assert types(up, topic_name) == ["order"] * 5
    assert waits(up) == []
    up.assert_equal(topic_name)


def answering(node: str, *answers: Answered) -> tuple[Answer, list[Asked]]:
    """Answer with these, one after the other, then as the registry does; and all that was asked."""
    asked: list[Asked] = []

    def answer(request: Asked, forward: Forward) -> Answered:
        asked.append(request)
        return answers[len(asked) - 1] if len(asked) <= len(answers) else forward(request)

    return answer, asked


UNKNOWN_ANSWER = (404, {"error_code": 40403, "message": "Schema not found"})


@pytest.mark.parametrize("answers", [[(500, None)] * 2, [(503, {"message": "busy"})], [UNKNOWN_ANSWER], [(401, None)]])
def test_a_batch_waits_for_its_schema(
    bootstrap_servers: str,
    topic_name: str,
    tmp_path: Path,
    registry: Apicurio,
    answers: list[Answered],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What passes by itself, be it an error, a refusal or an id that is not there yet, is waited for in the batch."""
    create_topic(bootstrap_servers, topic_name)
    schema = register(registry.url, topic_name, ORDER)
    send(bootstrap_servers, topic_name, order(schema, 1))
    answer, asked = answering(registry.url, *answers)
    with proxy(registry.url, answer) as url, caplog.at_level(logging.INFO, "archiver_pipeline"):
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(url, registry_wait_seconds=30))
        (batch,) = archived.run()
    assert batch.types == {"order": 1}
    assert len(asked) == len(answers) + 1
    assert list(Waits(archived.settings).present({})) == []
    said = [record.getMessage() for record in caplog.records if topic_name in record.getMessage()]
    begin, why = f"{topic_name}, partition 0, offset 0 waits, ", f" s of 30 s: {url} answered {answers[0][0]}"
    assert any(text.startswith(begin) and why in text for text in said)
    assert f"{topic_name}, partition 0 goes on: schema {schema} is there" in said


@pytest.mark.parametrize(
    ("answered", "hint"),
    [
        ((401, {"error_code": 401, "message": "Unauthorized"}), "Check user and password in ARCHIVER_REGISTRY_URL"),
        ((403, None), "Check user and password in ARCHIVER_REGISTRY_URL"),
        ((404, {"message": "no such page"}), "Check ARCHIVER_REGISTRY_URL and that the registry is up"),
        ((200, ["no schema"]), "Check ARCHIVER_REGISTRY_URL and that the registry is up"),
        ((429, None), "Check ARCHIVER_REGISTRY_URL and that the registry is up"),
    ],
)
def test_what_a_registry_may_answer(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, answered: Answered, hint: str
) -> None:
    """Whatever it answers, a message is neither skipped nor given a type that is not its own."""
    create_topic(bootstrap_servers, topic_name)
    send(bootstrap_servers, topic_name, order(7, 1))
    with proxy("", lambda *_: answered) as url:
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(url))
        with pytest.raises(RegistryUnavailable, match=hint):
            archived.run()
    assert archived.archiver().archive.ledger().committed == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"schema": "no schema"},
        {"schema": '{"type": "record"}'},
        {"schema": '{"type": "made-up"}'},
        {"schema": "message", "schemaType": "PROTOBUF"},
        {"schema": "<xml/>", "schemaType": "XSD"},
    ],
)
def test_a_schema_that_cannot_be_used(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, schema: dict[str, str]
) -> None:
    """It is not waited for in the batch, since it will not change, but nothing is archived with it either."""
    create_topic(bootstrap_servers, topic_name)
    send(bootstrap_servers, topic_name, order(7, 1))
    with proxy("", lambda *_: (200, schema)) as url:
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(url, registry_wait_seconds=600))
        with pytest.raises(SchemaUnusable, match=r"schema 7 of .* cannot be used: .*ARCHIVER_REGISTRY_UNDECODED"):
            archived.run()
    assert len(waits(archived)) == 1


def test_an_id_that_nobody_knows(bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio) -> None:
    """What comes before it, other partitions and other topics go on; when it is given up by its id its messages keep
    their bytes, and the rest of the partition is decoded."""
    other = f"{topic_name}-other"
    create_topic(bootstrap_servers, topic_name, partitions=2)
    create_topic(bootstrap_servers, other)
    schema = register(registry.url, topic_name, ORDER)
    bogus = framed(UNKNOWN, b"\xff")
    send(bootstrap_servers, topic_name, order(schema, 1), bogus, order(schema, 2), partition=0)
    send(bootstrap_servers, topic_name, order(schema, 4), partition=1)
    send(bootstrap_servers, other, order(schema, 3), b'{"type": "plain"}')
    archived = Archived(tmp_path, bootstrap_servers, topic_name, other, **decoded_settings(registry.url))
    with pytest.raises(SchemaUnknown, match="or archive its messages as they are: list it in ARCHIVER_REGISTRY_UNDEC"):
        archived.run()
    assert types(archived, topic_name) == ["order", "order"]
    assert archived.next_offsets(topic_name) == {0: 1, 1: 1}
    assert types(archived, other) == ["order", "plain"]
    assert [(wait.topic, wait.offset, wait.schema) for wait in waits(archived)] == [(topic_name, 1, str(UNKNOWN))]
    # An hour must not be taken for complete that lacks what waits.
    assert archived.archiver().archive.ledger().caught_up == {}
    given_up = decoded_settings(registry.url, registry_undecoded=(str(UNKNOWN),))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, other, **given_up)
    archived.run()
    assert sorted(types(archived, topic_name)) == [MALFORMED, "order", "order", "order"]
    assert archived.values(topic_name)[1] == bogus
    assert waits(archived) == []
    archived.assert_equal(topic_name, other)


def test_a_run_that_is_stopped_does_not_wait(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """Whoever stops a batch that waits, for ten minutes if need be, has it stopped at once."""
    create_topic(bootstrap_servers, topic_name)
    send(bootstrap_servers, topic_name, framed(UNKNOWN, b""))
    settings = decoded_settings(registry.url, registry_wait_seconds=600)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **settings)
    archiver = archived.archiver()
    planned = archiver._planner.plan({}, None)
    assert planned is not None
    reading = archiver._start(planned, set)
    failed: list[RegistryError] = []

    def take() -> None:
        try:
            list(reading.frames())
        except RegistryError as error:
            failed.append(error)

    taking = threading.Thread(target=take)
    taking.start()
    wait_for("the batch to wait", lambda: list(Waits(archived.settings).present({})) != [])
    reading.stop()
    taking.join(10)
    assert not taking.is_alive()


def test_a_guid_in_a_header(bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio) -> None:
    """The newer framing has the schema's GUID in a header, and the payload as Avro has it."""
    create_topic(bootstrap_servers, topic_name)
    schema = register(registry.url, topic_name, ORDER)
    guid = uuid.uuid4()
    body = order(schema, 1)[5:]
    headers = (("h", b""), (HEADER, b"\1" + guid.bytes))
    send(bootstrap_servers, topic_name, body, headers=headers)

    def answer(asked: Asked, forward: Forward) -> Answered:
        path = asked.path.replace(f"/schemas/guids/{guid}", f"/schemas/ids/{schema}")
        return forward(Asked(asked.method, path, asked.headers, asked.body))

    with proxy(registry.url, answer) as url:
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(url))
        archived.run()
    assert archived.sql("SELECT type, value, value_bytes FROM messages") == [("order", '{"type":"order","n":1}', body)]
    archived.assert_equal(topic_name)


def basic(url: str) -> dict[str, Any]:
    """Settings with user and password in the URL."""
    return {"registry_url": url.replace("//", "//us%40er:p%2Fw@")}


def bearer(url: str) -> dict[str, Any]:
    """Settings with a token."""
    return {"registry_url": url, "registry_token": "t0ken"}


@pytest.mark.parametrize(
    ("login", "header"),
    [(basic, "Basic " + base64.b64encode(b"us@er:p/w").decode()), (bearer, "Bearer t0ken")],
)
def test_logging_in(
    bootstrap_servers: str,
    topic_name: str,
    tmp_path: Path,
    registry: Apicurio,
    login: Callable[[str], dict[str, Any]],
    header: str,
) -> None:
    """User and password, or a token, are sent with each question."""
    create_topic(bootstrap_servers, topic_name)
    schema = register(registry.url, topic_name, ORDER)
    send(bootstrap_servers, topic_name, order(schema, 1))
    answer, asked = answering(registry.url)
    with proxy(registry.url, answer) as url:
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **{**decoded_settings(url), **login(url)})
        archived.run()
    assert types(archived, topic_name) == ["order"]
    assert [each.headers.get("Authorization", each.headers.get("authorization")) for each in asked] == [header]


def test_tls_with_a_certificate_of_ones_own(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """The registry is believed by the authority that is set, and sees the client's certificate; without either the
    topic waits, and the error says why."""
    create_topic(bootstrap_servers, topic_name)
    schema = register(registry.url, topic_name, ORDER)
    send(bootstrap_servers, topic_name, order(schema, 1))
    certificates = Certificates(tmp_path)
    own = {"registry_certificate": certificates.client, "registry_key": certificates.client_key}
    own |= {"registry_key_password": PASSWORD}
    answer, asked = answering(registry.url)
    with proxy(registry.url, answer, certificates.server_side()) as url:
        stranger = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(url, **own))
        with pytest.raises(RegistryUnavailable, match="certificate verify failed"):
            stranger.run()
        assert asked == []
        settings = decoded_settings(url, registry_ca=certificates.authority, **own)
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **settings)
        archived.run()
    assert types(archived, topic_name) == ["order"]


def test_a_redirect_is_not_followed(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A registry that sends one elsewhere is not obeyed: that place is not asked, and gets no password."""
    create_topic(bootstrap_servers, topic_name)
    send(bootstrap_servers, topic_name, order(7, 1))
    elsewhere: list[str] = []

    class Elsewhere(QuietHandler):
        def do_GET(self) -> None:
            elsewhere.append(str(self.headers))
            self.send_error(404)

    with listening(Elsewhere) as other:

        class Redirecting(QuietHandler):
            def do_GET(self) -> None:
                self.send_response(307)
                self.send_header("Location", f"{other}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with listening(Redirecting) as url:
            archived = Archived(tmp_path, bootstrap_servers, topic_name, **{**decoded_settings(url), **basic(url)})
            with pytest.raises(RegistryUnavailable, match="answered 307"):
                archived.run()
    assert elsewhere == []


@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_without_an_end(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    """A registry that goes on and on, or sends what swells up, is given up in bounded time and memory."""
    monkeypatch.setattr(bounded, "MOST_BYTES", 1024**2)
    create_topic(bootstrap_servers, topic_name)
    send(bootstrap_servers, topic_name, order(7, 1))
    sent = [0]

    class Endless(QuietHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            if compressed:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(10 * 1024**3))
            self.end_headers()
            with suppress(OSError):
                while True:
                    sent[0] += self.wfile.write(b'{"schema": "' + b" " * 65536)

    with listening(Endless) as url:
        archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(url))
        with pytest.raises(RegistryUnavailable, match="its answer is compressed" if compressed else "goes on beyond"):
            archived.run()
    assert sent[0] < 100 * 1024**2
    assert archived.archiver().archive.ledger().committed == {}
