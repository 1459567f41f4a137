"""Rules of the follower into Elasticsearch or OpenSearch alone, on a real node."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr

from archiver_pipeline.errors import FollowerError, FollowerUnavailable, SettingsError, Superseded
from archiver_pipeline.followers import search_client
from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.feed import Feed
from archiver_pipeline.followers.search import SearchFollower
from archiver_pipeline.followers.search_address import parse_address
from archiver_pipeline.followers.search_documents import index_name
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, archive, event
from archiver_pipeline_tests.followers.search_kit import SearchKit
from archiver_pipeline_tests.followers.search_proxy import Answered, Asked, Forward, proxy
from archiver_pipeline_tests.followers.workload import Filled
from archiver_pipeline_tests.listening import QuietHandler, listening
from archiver_pipeline_tests.ugly_messages import PAYLOADS, TIMES, UGLY_TYPES

MiB = 1024**2


@pytest.fixture
def filled(search_kit: SearchKit, tmp_path: Path) -> Filled:
    """An archive with nothing in it yet."""
    return Filled(tmp_path, search_kit.settings)


def follow(filled: Filled, url: str | None = None) -> None:
    """One pass, over another address if one is given."""
    settings = filled.settings
    if url is not None:
        settings = settings.model_copy(update={"search_url": SecretStr(url)})
    with closing(SearchFollower(settings)) as follower:
        catch_up(follower, settings, step_messages=1000)


def assert_right(kit: SearchKit, filled: Filled) -> None:
    """Assert that the node has what the archive has."""
    assert kit.content(filled.settings) == kit.expected(filled.messages())


def by_offset(kit: SearchKit) -> dict[int, dict[str, Any]]:
    """The documents of the only partition."""
    kit.refresh()
    return {hit["_source"]["offset"]: hit for hit in kit.pages()}


def count_fields(mapping: Any) -> int:
    """How many fields a mapping has, at any depth."""
    return sum(1 + count_fields(field) for field in mapping.get("properties", {}).values())


def test_two_types_never_share_an_index() -> None:
    """Any type gives a name that Elasticsearch allows, of bounded length, and different types different ones."""
    types = {*UGLY_TYPES, *("x" * size for size in range(170, 200)), "🎉" * 15, "🎉" * 14 + "é", "a~2fb", "~~rest"}
    names = {index_name("archive", kind, "2019-08-01") for kind in types}
    assert len(names) == len(types)
    assert "archive-~~rest" not in names
    for name in names:
        assert len(name.encode()) <= 255
        assert name.lower() == name
        assert not set(name) & set('\\/*?"<>| ,#:%&+')


def test_ugly_types(search_kit: SearchKit, filled: Filled) -> None:
    """Every type has an index of its own, and a term finds it as it is."""
    types = UGLY_TYPES[::4]
    archive(filled.target, [event(kind) for kind in types])
    follow(filled)
    assert_right(search_kit, filled)
    hits = search_kit.pages()
    assert len({hit["_index"] for hit in hits}) == len(types)
    kinds = sorted(filled.messages()["type"].unique())
    assert [len(search_kit.search({"term": {"type": kind}})) for kind in kinds] == [1] * len(kinds)


def test_ugly_payloads_and_times(search_kit: SearchKit, filled: Filled) -> None:
    """Whatever is in a message, and whenever it claims to be from, it is there, and nothing stops."""
    payloads = [payload for payload, _ in PAYLOADS.values()]
    archive(filled.target, payloads, rule="constant:ugly")
    archive(filled.target, [event()] * len(TIMES), milliseconds=list(TIMES), rule="constant:ugly")
    follow(filled)
    documents = by_offset(search_kit)
    rows = filled.messages().sort("offset")
    assert sorted(documents) == rows["offset"].to_list()
    for offset, value, raw, dt in rows.select("offset", "value", "value_bytes", "dt").iter_rows():
        source = documents[offset]["_source"]
        assert source.get("value") == value
        assert ("value_base64" in source) == (raw is not None)
        assert ("timestamp" in source) == (dt != "_unknown")
    found = search_kit.search({"range": {"timestamp": {"gte": "1969-12-31T22:00:00Z", "lt": "1970-01-01T01:00:00Z"}}})
    assert len(found) == sum(dt in ("1969-12-31", "1970-01-01") and hr != "01" for dt, hr in TIMES.values())


def test_the_mapping_never_grows(search_kit: SearchKit, filled: Filled) -> None:
    """JSON with ever new names, and a name with ever new kinds of values, adds no field."""
    follow_one(filled, [event("t", uid="u")])
    mapping = search_kit.ask("GET", f"/{search_kit.prefix}-t-2019.08.01")
    values = [1, "x", True, None, [], {}, [1, "x"], {"a": {"b": 1}}, {"a.b": 2}, "2019-08-01", 1e300]
    follow_one(filled, [event("t", **{f"name{n}": n, "same": values[n % len(values)]}) for n in range(300)])
    after = search_kit.ask("GET", f"/{search_kit.prefix}-t-2019.08.01")
    (one,), (two,) = mapping.values(), after.values()
    assert one["mappings"] == two["mappings"]
    assert count_fields(two["mappings"]) < 30
    assert_right(search_kit, filled)


def follow_one(filled: Filled, payloads: Sequence[bytes | None], **kinds: object) -> None:
    """Archive a batch and follow it."""
    archive(filled.target, payloads, **kinds)  # type: ignore[arg-type]
    follow(filled)


def test_json_that_cannot_be_parsed_into_fields(search_kit: SearchKit, filled: Filled) -> None:
    """What the node refuses, or would not survive, is stored as text; the document says what was left out and why."""
    deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
    long = event("t", text="x" * 40_000)
    many = event("t", **{f"name{n}": n for n in range(60_000)})
    below_a_long_name = event("t", **{"n" * 20_000: list(range(1000))})
    twice = b'{"type":"t","a":1,"a":2}'
    ugly = {twice: "Duplicate field", long: "immense term", deep: "deeper", many: "over", below_a_long_name: "over"}
    follow_one(filled, [event("t", uid="u1"), *ugly], rule="constant:t")
    documents = by_offset(search_kit)
    assert "left_out" not in documents[0]["_source"]
    for number, why in enumerate(ugly.values(), 1):
        assert documents[number]["_source"]["left_out"] == ["fields"]
        assert why in documents[number]["_source"]["left_out_why"]
    assert [documents[n]["_source"]["value"] for n in range(6)] == filled.messages().sort("offset")["value"].to_list()


def test_a_message_of_five_megabytes(search_kit: SearchKit, filled: Filled) -> None:
    """Large messages go through whole up to 10 MiB; of a larger one the document says where its payload is."""
    words = ("lorem ipsum " * MiB)[: 5 * MiB - 7] + " needle"
    follow_one(filled, [event("t", text=words), event("t", n=1), event("t", text="y " * (6 * MiB))])
    documents = by_offset(search_kit)
    assert json.loads(documents[0]["_source"]["value"])["text"] == words
    assert search_kit.search({"match": {"value": "needle"}}) == {("orders", 0, 0)}
    assert documents[2]["_source"]["left_out"] == ["fields", "value"]
    assert "archive" in documents[2]["_source"]["left_out_why"]
    assert documents[2]["_source"]["size"] > 12 * MiB


def test_what_a_search_finds(search_kit: SearchKit, filled: Filled) -> None:
    """Messages are found by type, time, key, a JSON field at any depth, and the words of their text."""
    payloads = [event(f"object.{n % 3}", uid=f"user-{n % 7}", address={"city": f"Town {n}"}) for n in range(60)]
    follow_one(
        filled,
        [*payloads, b"no json: lonely words"],
        milliseconds=[AUGUST_FIRST_AT_THREE + n * 60_000 for n in range(61)],
    )
    search_kit.refresh()

    def offsets(*queries: dict[str, Any]) -> list[int]:
        return sorted(offset for _, _, offset in search_kit.search({"bool": {"filter": list(queries)}}))

    in_time = {"range": {"timestamp": {"gte": "2019-08-01T03:10:00Z", "lt": "2019-08-01T03:20:00Z"}}}
    assert offsets({"term": {"type": "object.1"}}, in_time) == [10, 13, 16, 19]
    assert offsets({"term": {"fields.uid": "user-3"}}) == [n for n in range(60) if n % 7 == 3]
    assert offsets({"term": {"fields.address.city": "Town 17"}}) == [17]
    assert offsets({"match_phrase": {"value": "lonely words"}}) == [60]
    assert offsets({"term": {"key": "key"}}, in_time) == list(range(10, 20))


def test_a_cluster_that_is_busy(search_kit: SearchKit, filled: Filled) -> None:
    """Only the documents that got a 429 or 503 are sent again, and none is lost."""
    sent: list[int] = []

    def answer(asked: Asked, forward: Forward) -> Answered:
        if not asked.path.startswith("/_bulk"):
            return forward(asked)
        pairs = list(zip(*[iter(asked.body.splitlines(keepends=True))] * 2, strict=True))
        sent.append(len(pairs))
        if len(sent) == 1:
            return 429, {"error": {"type": "too_many", "reason": "not now"}}
        refused = 503 if len(sent) == 2 else 429
        taken = pairs[:20] if len(sent) < 5 else pairs
        status, found = forward(Asked(asked.method, asked.path, asked.headers, b"".join(map(b"".join, taken))))
        busy = {"index": {"status": refused, "error": {"type": "es_rejected_execution_exception", "reason": "queue"}}}
        return status, {**found, "errors": True, "items": found["items"] + [busy] * (len(pairs) - len(taken))}

    archive(filled.target, [event("t", n=n) for n in range(100)])
    with proxy(search_kit.node.url, answer) as url:
        follow(filled, f"{url}?prefix={search_kit.prefix}")
    assert sent == [100, 100, 80, 60, 40]
    assert_right(search_kit, filled)


def test_a_cluster_that_stays_busy(search_kit: SearchKit, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that takes nothing for too long is not waited for; the next run goes on from the position."""
    monkeypatch.setattr(search_client.SearchClient, "patience", lambda self: search_client.Patience("", 0.5))

    def answer(asked: Asked, forward: Forward) -> Answered:
        return (429, {"error": "full"}) if asked.path.startswith("/_bulk") else forward(asked)

    filled.add(1)
    with (
        proxy(search_kit.node.url, answer) as url,
        pytest.raises(FollowerUnavailable, match=r"asked to wait.*full"),
    ):
        follow(filled, f"{url}?prefix={search_kit.prefix}")
    follow(filled)
    assert_right(search_kit, filled)


def test_a_request_that_is_too_large(search_kit: SearchKit, filled: Filled) -> None:
    """A body that the server finds too large is cut in halves; a document too large alone goes with less in it."""
    sizes: list[int] = []

    def answer(asked: Asked, forward: Forward) -> Answered:
        if asked.path.startswith("/_bulk"):
            sizes.append(len(asked.body))
            if len(asked.body) > 20_000:
                return 413, None
        return forward(asked)

    archive(
        filled.target,
        [*(event("t", n=n) for n in range(200)), event("t", text="x " * 8000), event("t", text="x " * 15_000)],
    )
    with proxy(search_kit.node.url, answer) as url:
        follow(filled, f"{url}?prefix={search_kit.prefix}")
    documents = by_offset(search_kit)
    assert len(documents) == 202
    assert documents[200]["_source"]["left_out"] == ["fields"]
    assert len(documents[200]["_source"]["value"]) > 16_000
    assert documents[201]["_source"]["left_out"] == ["fields", "value"]
    assert max(sizes) > 20_000


def test_compressed(search_kit: SearchKit, filled: Filled) -> None:
    """Bodies may be sent compressed."""
    filled.add(1)
    encodings: set[str | None] = set()

    def answer(asked: Asked, forward: Forward) -> Answered:
        if asked.path.startswith("/_bulk"):
            encodings.add(asked.headers.get("Content-Encoding"))
        return forward(asked)

    with proxy(search_kit.node.url, answer) as url:
        follow(filled, f"{url}?prefix={search_kit.prefix}&gzip=true")
    assert encodings == {"gzip"}
    assert_right(search_kit, filled)


def test_a_cluster_that_has_all_the_shards_it_takes(search_kit: SearchKit, filled: Filled) -> None:
    """Messages whose index cannot be made lie in one for all of them, are found there, and are replaced there."""
    follow_one(filled, [event("t")])
    shards = search_kit.ask("GET", "/_cluster/health")["active_shards"]
    search_kit.ask("PUT", "/_cluster/settings", {"transient": {"cluster.max_shards_per_node": shards}})
    try:
        follow_one(filled, [event(f"more.{n}") for n in range(20)])
        hits = by_offset(search_kit)
        assert {hits[n]["_index"] for n in range(1, 21)} == {f"{search_kit.prefix}-~~rest"}
        assert hits[1]["_source"]["left_out"] == ["index"]
        assert len(search_kit.search({"term": {"type": "more.7"}})) == 1
    finally:
        search_kit.ask("PUT", "/_cluster/settings", {"transient": {"cluster.max_shards_per_node": None}})
    filled.rewrite(filled.hours()[0], pl.col("value"))
    follow(filled)
    assert_right(search_kit, filled)


def half(filled: Filled, follower: SearchFollower) -> None:
    """Let a step fail after its documents were sent."""
    step = next(Feed(filled.target).steps(follower.position()))

    def broken() -> Iterator[pl.DataFrame]:
        for frame in Feed(filled.target).frames(step, follower.columns):
            yield frame
            # A body is sent when the next one is full.
            yield frame.head(1).with_columns(value=pl.lit("x" * 7 * MiB))
            yield frame.head(2).with_columns(value=pl.lit("x" * 7 * MiB))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        follower.take(broken(), step.before, step.after)


def test_what_half_a_step_left_is_gone(search_kit: SearchKit, filled: Filled) -> None:
    """Documents of a step that failed do not outlive a change of their messages, in whatever index that puts them."""
    filled.add(3)
    with closing(SearchFollower(filled.settings)) as follower:
        half(filled, follower)
        search_kit.refresh()
        assert len(search_kit.pages()) == filled.messages().height
        hour = filled.hours()[1]
        filled.rewrite(hour, erase=pl.col("value").str.contains("user-3").fill_null(value=False))
        filled.rewrite(
            hour, pl.when(pl.col("type") == "object.1").then(pl.lit("retyped")).otherwise("type").alias("type")
        )
        catch_up(follower, filled.settings)
    assert_right(search_kit, filled)


def test_an_attempt_that_was_passed_by(search_kit: SearchKit, filled: Filled) -> None:
    """A run that hangs while another goes on writes nothing any more, and says so."""
    filled.add(3)
    with closing(SearchFollower(filled.settings)) as slow:
        step = next(Feed(filled.target).steps(slow.position()))

        def hanging() -> Iterator[pl.DataFrame]:
            follow(filled)
            for frame in Feed(filled.target).frames(step, slow.columns):
                stale = pl.when(pl.col("offset") % 2 == 0).then(pl.lit("other")).otherwise("type")
                yield frame.with_columns(stale.alias("type"), value=pl.lit("stale"))

        with pytest.raises(Superseded):
            slow.take(hanging(), step.before, step.after)
    assert_right(search_kit, filled)


def test_a_position_that_was_removed(search_kit: SearchKit, filled: Filled) -> None:
    """Without a position everything is taken anew, over what is there."""
    filled.add(2)
    follow(filled)
    search_kit.ask("DELETE", f"/archiver-positions/_doc/search_messages:{search_kit.prefix}")
    follow(filled)
    assert_right(search_kit, filled)


def test_a_wrong_password(tmp_path: Path) -> None:
    """A cluster that refuses user and password is named, and neither of them is shown."""

    def answer(asked: Asked, forward: Forward) -> Answered:
        return 401, {"error": {"type": "security_exception", "reason": "unable to authenticate"}}

    with proxy("", answer) as url:
        address = url.replace("://", "://elastic:s3cr%2Ft@")
        with closing(SearchFollower(Settings(BASE_DIR=tmp_path, search_url=address))) as follower:
            with pytest.raises(FollowerError, match="ARCHIVER_SEARCH_URL") as refused:
                follower.position()
            text = f"{refused.value!r} {refused.value.__context__!r}"
    assert url in text
    assert "s3cr" not in text
    assert not isinstance(refused.value, FollowerUnavailable)


def test_a_node_that_is_gone_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No listener, and one that never answers, are told apart and said within seconds."""
    monkeypatch.setattr(search_client.SearchClient.ask, "__kwdefaults__", {"expected": (200,), "seconds": 0.5})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://u:s3cret@127.0.0.1:{listener.getsockname()[1]}"
        for state in ("refused", "no answer within"):
            began = time.monotonic()
            with (
                closing(SearchFollower(Settings(BASE_DIR=tmp_path, search_url=address))) as follower,
                pytest.raises(FollowerUnavailable, match=state) as gone,
            ):
                follower.position()
            assert time.monotonic() - began < 30
            assert "s3cret" not in str(gone.value)
            listener.listen()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h:9200", ("http://h:9200", None, True, "archive", False)),
        ("https://u:p%40%2F@h/es/?ca=a.pem&gzip=true", ("https://h/es", ("u", "p@/"), "a.pem", "archive", True)),
        ("https://u@[::1]:9200?verify=false&prefix=a.b", ("https://[::1]:9200", ("u", ""), False, "a.b", False)),
    ],
)
def test_an_address(url: str, found: tuple[object, ...]) -> None:
    """The URL says host, path, user, password, authority and prefix."""
    address = parse_address(url)
    assert (address.url, address.auth, address.verify, address.prefix, address.gzip) == found
    assert address.auth is None or repr(address.auth) not in repr(address)


@pytest.mark.parametrize(
    "rest", ["@h?prefix=A", "@h?prefix=a-b", "@h?prefix=archiver", "@h?verify=no", "@h?cert=x", "@h:port", "@h?x"]
)
def test_a_wrong_address(rest: str) -> None:
    """A fault in the address is named without showing the password."""
    with pytest.raises(SettingsError, match="ARCHIVER_SEARCH_URL") as wrong:
        parse_address(f"https://u:s3cret{rest}")
    assert "s3cret" not in str(wrong.value)


@pytest.mark.parametrize("redirects", [False, True])
def test_an_answer_from_somebody_else(monkeypatch: pytest.MonkeyPatch, redirects: bool) -> None:
    """An answer that goes on and on is given up; a redirect is not followed, so that nobody else gets the password."""
    monkeypatch.setattr(search_client, "_MOST_BYTES", 1024**2)
    asked: list[str] = []

    class Hostile(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if redirects else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0" if redirects else str(10 * 1024**3))
            self.end_headers()
            with suppress(OSError):
                while not redirects:
                    self.wfile.write(b" " * 65536)

    with listening(Hostile) as url:
        client = search_client.SearchClient(parse_address(url.replace("//", "//user:secret@")))
        with pytest.raises(FollowerError, match="refused GET /asked" if redirects else "its answer goes on beyond"):
            client.ask("GET", "/asked")
        client.close()
    assert asked == ["/asked"]
