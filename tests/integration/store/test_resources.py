"""The contract of the resource store, on both databases."""

import asyncio

import pytest

from tests.integration.store.conftest import Open
from trunkline import v1
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.store import resources
from trunkline_server.store.database import ConstraintError, Database
from trunkline_server.store.resources import (
    EtagMismatchError,
    Resource,
    ResourceExistsError,
    ResourceNotFoundError,
    ResourceStore,
)

# What a store that looks into documents would change: order, spaces, escapes, a great number.
BODY = '{"b": 1,  "a": "\\u0000é\\ud83d\\ude00", "n": 123456789012345678901234567890.10}'.encode()


async def names(store: ResourceStore, kind: str, **how: object) -> list[list[str]]:
    """The names on each page of a list."""
    pages, token = [], ""
    while True:
        page = await store.list(kind, page_token=token, **how)  # type: ignore[arg-type] # Passed on.
        pages.append([each.name for each in page.resources])
        token = page.next_page_token
        if not token:
            return pages


async def test_a_resource_comes_back_byte_for_byte(store: ResourceStore) -> None:
    made = await store.create("keys", "tenants/acme/keys/ci", BODY, tenant="acme")
    assert await store.get("keys", "tenants/acme/keys/ci") == made
    assert (made.kind, made.name, made.tenant, made.body) == (
        *("keys", "tenants/acme/keys/ci", "acme"),
        BODY,
    )
    assert made.revision == await store.revision() == 1
    assert made.created_at == made.updated_at
    # Microseconds since the Unix epoch, of this minute.
    assert abs(made.created_at / 1e6 - SystemClock().wall()) < 60


async def test_what_is_not_there_is_not_found(store: ResourceStore) -> None:
    await store.create("keys", "one", b"{}")
    for asking in (
        store.get("keys", "two"),
        store.get("tenants", "one"),
        store.update("keys", "two", b"{}"),
        store.delete("keys", "two", etag="any"),
    ):
        with pytest.raises(ResourceNotFoundError):
            await asking
    assert await store.revision() == 1


async def test_a_name_is_taken_once(store: ResourceStore) -> None:
    first = await store.create("keys", "one", b"{}")
    with pytest.raises(ResourceExistsError, match="keys 'one' exists already"):
        await store.create("keys", "one", b'{"other": 1}')
    assert await store.get("keys", "one") == first
    assert await store.revision() == 1


async def test_each_change_has_a_new_etag_and_the_next_revision(store: ResourceStore) -> None:
    first = await store.create("keys", "one", b'{"v": 1}')
    second = await store.update("keys", "one", b'{"v": 2}', etag=first.etag)
    third = await store.update("keys", "one", b'{"v": 1}')
    assert [each.revision for each in (first, second, third)] == [1, 2, 3]
    assert len({each.etag for each in (first, second, third)}) == 3
    assert third.created_at == first.created_at <= second.updated_at <= third.updated_at
    assert await store.get("keys", "one") == third
    assert await store.delete("keys", "one", etag=third.etag) == 4


async def test_a_stale_etag_changes_nothing(store: ResourceStore) -> None:
    first = await store.create("keys", "one", b'{"v": 1}')
    second = await store.update("keys", "one", b'{"v": 2}')
    with pytest.raises(EtagMismatchError, match="changed meanwhile"):
        await store.update("keys", "one", b'{"v": 3}', etag=first.etag)
    with pytest.raises(EtagMismatchError):
        await store.delete("keys", "one", etag=first.etag)
    with pytest.raises(EtagMismatchError):
        # Empty is an etag that nothing has, and not the wish for no check.
        await store.delete("keys", "one", etag="")
    assert await store.get("keys", "one") == second
    assert await store.revision() == 2


async def test_of_two_writers_with_one_etag_exactly_one_wins(dsn: str, opened: Open) -> None:
    stores = [ResourceStore(await opened(dsn), SystemClock()) for _ in range(2)]
    current = await stores[0].create("keys", "one", b"0")
    for turn in range(1, 11):
        outcomes = await asyncio.gather(
            *(
                store.update("keys", "one", b"%d" % (10 * turn + number), etag=current.etag)
                for number, store in enumerate(stores)
            ),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in outcomes) == ["EtagMismatchError", "Resource"]
        current = next(each for each in outcomes if isinstance(each, Resource))
        assert await stores[0].get("keys", "one") == current
    assert current.revision == 11


async def test_revisions_have_no_gaps_and_no_twins(dsn: str, opened: Open) -> None:
    stores = [ResourceStore(await opened(dsn), SystemClock()) for _ in range(3)]
    made = await asyncio.gather(
        *(
            store.create("keys", f"{number}/{turn}", b"{}")
            for number, store in enumerate(stores)
            for turn in range(10)
        )
    )
    assert sorted(each.revision for each in made) == list(range(1, 31))


async def test_pages_are_ordered_by_code_point_and_whole(store: ResourceStore) -> None:
    given = ["b", "B", "a/1", "a-1", "a", "é", "z", "Ω", "a/10", "a/2", "\U0001f600", "_"]
    for name in given:
        await store.create("keys", name, b"{}")
    await store.create("tenants", "c", b"{}")
    expected = sorted(given)
    assert await names(store, "keys") == [expected]
    for size in (1, 5, 6, 12):
        pages = await names(store, "keys", page_size=size)
        assert pages == [expected[start : start + size] for start in range(0, 12, size)]
    assert await names(store, "models") == [[]]


async def test_a_list_is_filtered_by_prefix_and_tenant(store: ResourceStore) -> None:
    for tenant in ("acme", "acme-2", ""):
        for number in range(3):
            name = f"tenants/{tenant}/keys/{number}"
            await store.create("keys", name, b"{}", tenant=tenant)
    acme = [f"tenants/acme/keys/{number}" for number in range(3)]
    assert await names(store, "keys", prefix="tenants/acme/") == [acme]
    assert await names(store, "keys", tenant="acme", page_size=2) == [acme[:2], acme[2:]]
    assert await names(store, "keys", tenant="") == [[f"tenants//keys/{n}" for n in range(3)]]
    assert await names(store, "keys", prefix="tenants/acme/", tenant="acme-2") == [[]]
    # Neither of LIKE's wildcards is one here.
    assert await names(store, "keys", prefix="tenants/____/") == [[]]
    assert await names(store, "keys", prefix="%") == [[]]


async def test_pages_go_on_while_others_change_the_list(store: ResourceStore) -> None:
    for name in "bdfh":
        await store.create("keys", name, b"{}")
    page = await store.list("keys", page_size=2)
    assert [each.name for each in page.resources] == ["b", "d"]
    for name in "ace":
        await store.create("keys", name, b"{}")
    # The very one the token points at.
    await store.delete("keys", "d")
    await store.delete("keys", "h")
    rest = await store.list("keys", page_size=9, page_token=page.next_page_token)
    assert [each.name for each in rest.resources] == ["e", "f"]


async def test_a_token_of_another_list_is_refused(store: ResourceStore) -> None:
    for name in "abc":
        await store.create("keys", name, b"{}")
    token = (await store.list("keys", page_size=1)).next_page_token
    for asking in (
        store.list("tenants", page_token=token),
        store.list("keys", prefix="a", page_token=token),
        store.list("keys", tenant="acme", page_token=token),
        store.list("keys", page_token=token[:-1]),
        store.list("keys", page_token="no token!"),
        store.list("keys", page_token="é"),
    ):
        with pytest.raises(TrunklineError) as caught:
            await asking
        assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert caught.value.violations[0].field == "page_token"
    with pytest.raises(TrunklineError, match="page_size"):
        await store.list("keys", page_size=0)


async def test_a_page_has_a_greatest_size(
    store: ResourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "MAX_PAGE", 2)
    for name in "abc":
        await store.create("keys", name, b"{}")
    assert await names(store, "keys", page_size=1_000_000) == [["a", "b"], ["c"]]


async def test_changes_made_together_are_one_revision_or_nothing(store: ResourceStore) -> None:
    await store.create("keys", "old", b"{}")
    async with store.change() as change:
        new = await change.create("keys", "new", b"{}")
        await change.update("keys", "new", b'{"v": 2}', etag=new.etag)
        await change.delete("keys", "old")
    assert (await store.get("keys", "new")).revision == await store.revision() == 2

    async def fail_midway() -> None:
        async with store.change() as change:
            await change.delete("keys", "new")
            await change.create("tenants", "acme", b"{}")
            await change.create("tenants", "acme", b"{}")

    with pytest.raises(ResourceExistsError):
        await fail_midway()
    assert await names(store, "keys") == [["new"]]
    assert await names(store, "tenants") == [[]]
    assert await store.revision() == 2


async def test_a_body_that_is_no_json_is_refused_unquoted(store: ResourceStore) -> None:
    with pytest.raises(ConstraintError) as caught:
        await store.create("keys", "one", b'{"api_key": "sk-secret"')
    assert "secret" not in str(caught.value)
    assert await store.revision() == 0


async def test_read_all_gives_every_kind_at_one_revision(store: ResourceStore) -> None:
    made = [
        await store.create(kind, name, b"{}")
        for kind, name in (("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"))
    ]
    snapshot = await store.read_all(["c", "a", "none"])
    assert snapshot.revision == 4
    assert snapshot.resources == (made[0], made[1], made[3])


async def test_a_snapshot_is_of_one_moment(dsn: str, opened: Open) -> None:
    """Two counters that are only ever equal are never read unequal, nor at another revision."""
    writer, reader = [ResourceStore(await opened(dsn), SystemClock()) for _ in range(2)]

    async def write() -> None:
        for turn in range(60):
            async with writer.change() as change:
                for kind in ("a", "z"):
                    if turn == 0:
                        await change.create(kind, "count", b"1")
                    else:
                        await change.update(kind, "count", b"%d" % (turn + 1))

    writing = asyncio.create_task(write())
    seen = set()
    while not writing.done():
        snapshot = await reader.read_all(["a", "z"])
        bodies = {int(each.body) for each in snapshot.resources} or {0}
        assert bodies == {snapshot.revision}
        seen |= bodies
    await writing
    assert len(seen) > 3


async def test_read_since_gives_what_changed_and_what_went(store: ResourceStore) -> None:
    for name in "abc":
        await store.create("keys", name, b"{}")
    at = await store.revision()
    await store.create("keys", "d", b"{}")
    await store.update("keys", "a", b"[]")
    await store.delete("keys", "b")
    await store.create("keys", "brief", b"{}")
    await store.delete("keys", "brief")
    await store.create("tenants", "acme", b"{}")
    delta = await store.read_since(at, ["keys"])
    assert delta is not None
    assert delta.revision == at + 6
    assert delta.changed == (await store.get("keys", "a"), await store.get("keys", "d"))
    assert delta.deleted == (("keys", "b"), ("keys", "brief"))
    assert await store.read_since(delta.revision, ["keys"]) == resources.Delta(9, (), ())


async def test_history_ends(
    store: ResourceStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "HISTORY", 3)
    for number in range(6):
        await store.create("keys", str(number), b"{}")
    assert await store.read_since(2, ["keys"]) is None
    delta = await store.read_since(3, ["keys"])
    assert delta is not None
    assert [each.name for each in delta.changed] == ["3", "4", "5"]
    # As after a restored backup.
    assert await store.read_since(7, ["keys"]) is None
    kept = await database.fetch("SELECT revision FROM changes ORDER BY revision")
    assert [row["revision"] for row in kept] == [4, 5, 6]
