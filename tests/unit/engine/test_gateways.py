"""Headers of single deployments, and what a gateway before the vendors tells."""

from dataclasses import replace

import pytest

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import World
from trunkline import v1
from trunkline_server.engine.table import FixedCredential, Gateway, Table, WithHeaders
from trunkline_server.errors import TrunklineError

TOLD = {"x-trace": "t-1", "x-cache": "HIT"}
GATEWAY = Gateway(request_id="x-trace", trace_id="x-trace", cache_status="x-cache")


def world(gateway: Gateway | None, *answers: Answer, **headers: str) -> World:
    made = World({"alpha": answers})
    endpoint = replace(made.table.endpoints["alpha"], gateway=gateway)
    made.table = Table(
        made.snapshot,
        {**made.table.endpoints, "alpha": endpoint},
        made.health,
        made.table.flags_of,
        {"alpha-large": tuple(headers.items())} if headers else {},
    )
    made.engine.table = made.table
    return made


def test_what_a_gateway_tells_stands_in_the_attempt() -> None:
    async def main() -> None:
        made = world(GATEWAY, Answer(headers=TOLD))
        (attempt,) = (await made.generate()).attempts
        assert (attempt.gateway_trace_id, attempt.gateway_cache_status) == ("t-1", "HIT")
        assert ("x-trace", "id-1") in made.http.requests[0].headers

    run(main)


def test_of_streams_and_failures_too() -> None:
    async def main() -> None:
        chunks = [(0.0, b"data: hi\n\ndata: [end]\n\n")]
        made = world(GATEWAY, Answer(headers=TOLD, chunks=chunks))
        events = await made.stream()
        assert events[-1].end.attempts[0].gateway_trace_id == "t-1"
        made = world(GATEWAY, Answer(b"no", status=400, headers=TOLD))
        with pytest.raises(TrunklineError):
            await made.generate()
        ((call, _),) = made.observer.ended
        assert call.attempts[0].gateway_trace_id == "t-1"

    run(main)


def test_nothing_is_told_or_sent_where_no_header_is_named() -> None:
    async def main() -> None:
        for gateway in (None, Gateway()):
            made = world(gateway, Answer(headers=TOLD))
            (attempt,) = (await made.generate()).attempts
            assert not attempt.gateway_trace_id
            assert not attempt.gateway_cache_status
            assert not {"x-trace", ""} & {name for name, _ in made.http.requests[0].headers}

    run(main)


def test_what_it_tells_is_bounded() -> None:
    record = v1.Attempt()
    GATEWAY.note({"x-trace": "t" * 5_000, "x-cache": "c" * 5_000}, record)
    assert record.ByteSize() < 500


def test_a_deployments_headers_stand_in_the_place_of_the_providers() -> None:
    async def main() -> None:
        made = world(None, Answer(), authorization="other", **{"x-portkey-provider": "openai"})
        await made.generate()
        assert made.http.requests[0].headers == (
            ("authorization", "other"),
            ("x-portkey-provider", "openai"),
        )

    run(main)


class Changing:
    """A credential under change."""

    old = (("key", "old"), ("a", "1"))
    new = (("key", "new"), ("a", "1"))

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return self.new

    @property
    def sign(self) -> None:
        return

    def refused(self, headers: object) -> tuple[tuple[str, str], ...] | None:
        return self.old if headers == self.new else None

    def redacted(self, message: str, headers: tuple[tuple[str, str], ...]) -> str:
        return message.replace(headers[0][1], "[redacted]")


def test_a_refused_credential_has_its_other_with_the_same_headers() -> None:
    wrapped = WithHeaders(Changing(), (("a", "2"), ("b", "3")))
    first = wrapped.headers
    assert first == (("key", "new"), ("a", "2"), ("b", "3"))
    assert wrapped.headers is first
    other = wrapped.refused(first)
    assert other == (("key", "old"), ("a", "2"), ("b", "3"))
    assert wrapped.refused(other) is None
    assert wrapped.redacted("old and new", first) == "old and [redacted]"
    assert wrapped.redacted("old and new", other) == "[redacted] and new"


def test_many_changes_are_not_remembered() -> None:
    inner = Changing()
    wrapped = WithHeaders(inner, (("b", "3"),))
    for number in range(100):
        inner.new = (("key", str(number)), ("a", "1"))
        assert dict(wrapped.headers)["key"] == str(number)
    assert len(wrapped._made) < 10
    fixed = FixedCredential((("key", "s"),), ("s",))
    assert WithHeaders(fixed, ()).refused(fixed.headers) is None
