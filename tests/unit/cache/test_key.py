"""The key of an answer."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.unit.cache.samples import ROUTE, SOURCE, Someone, ask
from trunkline import v1
from trunkline_server.cache.cache import Source, fingerprint, scope_of
from trunkline_server.cache.key import EXCLUDED, embed_keys, generate_key

TOLD = Source(ROUTE, sends_user_id=True)

_SCALARS: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_INT32: 3,
    FieldDescriptor.CPPTYPE_INT64: 3,
    FieldDescriptor.CPPTYPE_UINT32: 3,
    FieldDescriptor.CPPTYPE_UINT64: 3,
    FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
    FieldDescriptor.CPPTYPE_FLOAT: 0.5,
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_ENUM: 1,
    FieldDescriptor.CPPTYPE_STRING: "x",
}


def _paths(kind: Descriptor, depth: int = 6) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Every way from a message down to a field that holds a value; parts nest in results of
    tools, which are followed only so far."""
    for field in kind.fields:
        if field.message_type is None:
            yield (field,)
            continue
        fields = field.message_type.fields
        is_map = field.message_type.GetOptions().map_entry
        if is_map or not fields:
            yield (field,)
        elif depth:
            for rest in _paths(field.message_type, depth - 1):
                yield (field, *rest)


def _set(message: Message, path: tuple[FieldDescriptor, ...]) -> None:
    field, *rest = path
    value = getattr(message, field.name)
    if rest:
        _set(value.add() if field.is_repeated else value, tuple(rest))
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        if entry.message_type is not None:
            value["x"].SetInParent()
        else:
            value["x"] = "x"
    elif field.message_type is not None:
        if field.is_repeated:
            value.add()
        else:
            value.SetInParent()
    else:
        scalar: Any = b"x" if field.type == FieldDescriptor.TYPE_BYTES else _SCALARS[field.cpp_type]
        if field.is_repeated:
            value.append(scalar)
        else:
            setattr(message, field.name, scalar)


def _excluded(name: str) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in EXCLUDED)


def _name(path: tuple[FieldDescriptor, ...]) -> str:
    return ".".join(field.name for field in path)


GENERATE_PATHS = list(_paths(v1.GenerateRequest.DESCRIPTOR))
EMBED_PATHS = list(_paths(v1.EmbedRequest.DESCRIPTOR))


def test_the_walk_reaches_every_top_level_field() -> None:
    """The tests below prove something about all fields only if they meet all."""
    for kind, paths in (
        (v1.GenerateRequest.DESCRIPTOR, GENERATE_PATHS),
        (v1.EmbedRequest.DESCRIPTOR, EMBED_PATHS),
    ):
        assert {path[0].name for path in paths} == {field.name for field in kind.fields}
    names = {_name(path) for path in GENERATE_PATHS}
    assert {"config.temperature", "messages.parts.tool_result.parts.text"} <= names


@pytest.mark.parametrize("path", GENERATE_PATHS, ids=_name)
def test_every_field_is_in_the_key_or_excluded_by_name(path: tuple[FieldDescriptor, ...]) -> None:
    plain, changed = v1.GenerateRequest(), v1.GenerateRequest()
    _set(changed, path)
    assert changed.ByteSize() > 0
    same = generate_key(plain, "k/a", SOURCE) == generate_key(changed, "k/a", SOURCE)
    assert same == _excluded(_name(path))


@pytest.mark.parametrize("path", EMBED_PATHS, ids=_name)
def test_every_field_of_an_embedding_likewise(path: tuple[FieldDescriptor, ...]) -> None:
    plain, changed = v1.EmbedRequest(inputs=["a"]), v1.EmbedRequest(inputs=["a"])
    _set(changed, path)
    name = _name(path)
    plain_key, changed_keys = (
        embed_keys(plain, "k/a", SOURCE)[0],
        embed_keys(changed, "k/a", SOURCE),
    )
    if name == "inputs":
        assert changed_keys[0] == plain_key != changed_keys[1]
    else:
        assert (changed_keys[0] == plain_key) == _excluded(name)


def test_user_id_counts_only_where_a_vendor_is_told() -> None:
    anna = ask(context=v1.CallContext(user_id="anna"))
    bob = ask(context=v1.CallContext(user_id="bob", agent_id="agent"))
    nobody = ask(context=v1.CallContext(workflow_id="w", labels={"a": "b"}))
    assert len({generate_key(each, "k/a", SOURCE) for each in (anna, bob, nobody)}) == 1
    assert len({generate_key(each, "k/a", TOLD) for each in (anna, bob, nobody)}) == 3
    texts = [v1.EmbedRequest(inputs=["a"], context=each.context) for each in (anna, bob)]
    assert embed_keys(texts[0], "k/a", TOLD) != embed_keys(texts[1], "k/a", TOLD)
    assert embed_keys(texts[0], "k/a", SOURCE) == embed_keys(texts[1], "k/a", SOURCE)


def test_zero_is_not_absence() -> None:
    keys = {
        generate_key(v1.GenerateRequest(config=config), "k/a", SOURCE)
        for config in (
            v1.GenerationConfig(),
            v1.GenerationConfig(temperature=0.0),
            v1.GenerationConfig(temperature=1.0),
            v1.GenerationConfig(seed=0),
            v1.GenerationConfig(presence_penalty=0.0),
            v1.GenerationConfig(reasoning=v1.ReasoningConfig(budget_tokens=0)),
            v1.GenerationConfig(temperature=0.1 + 0.2),
            v1.GenerationConfig(temperature=0.3),
        )
    }
    assert len(keys) == 8


def test_what_means_the_same_has_the_same_key() -> None:
    def key(**fields: Any) -> bytes:
        return generate_key(ask(**fields), "k/a", SOURCE)

    assert (
        key()
        == key(tool_choice=v1.ToolChoice(), response_format=v1.ResponseFormat())
        == key(requirements=v1.Requirements(), routing=v1.RoutingOptions())
        == key(routing=v1.RoutingOptions(hedge=True))
        == key(routing=v1.RoutingOptions(hedge=False))
    )
    assert key(response_format=v1.ResponseFormat(json_object=v1.JsonObject())) != key()
    first = v1.Requirements(capabilities=["vision", "tools"], data_residency="EU")
    second = v1.Requirements(capabilities=["tools", "vision", "tools"], data_residency="eu")
    assert key(requirements=first) == key(requirements=second)
    assert key(routing=v1.RoutingOptions(allowed_providers=["a", "b"])) == key(
        routing=v1.RoutingOptions(allowed_providers=["b", "a"])
    )
    # Of messages and stop texts the order counts.
    assert key(config=v1.GenerationConfig(stop=["a", "b"])) != key(
        config=v1.GenerationConfig(stop=["b", "a"])
    )


def test_maps_have_no_order() -> None:
    one, two = ask(), ask()
    one.provider_options.update({"a": 1, "b": {"c": 2, "d": 3}})
    two.provider_options.update({"b": {"d": 3, "c": 2}})
    two.provider_options.update({"a": 1})
    assert generate_key(one, "k/a", SOURCE) == generate_key(two, "k/a", SOURCE)


def test_the_request_is_left_as_it_was() -> None:
    request = ask(
        requirements=v1.Requirements(capabilities=["b", "a"], data_residency="EU"),
        routing=v1.RoutingOptions(hedge=True, denied_providers=["b", "a"]),
        request_id="x",
        cache=v1.CachePolicy(mode=v1.CACHE_MODE_REFRESH),
    )
    before = request.SerializeToString(deterministic=True)
    generate_key(request, "k/a", SOURCE)
    assert request.SerializeToString(deterministic=True) == before


def test_scopes_of_tenants_and_of_keys_never_meet() -> None:
    scopes = {
        scope_of(Someone("a", "")),
        scope_of(Someone("b", "")),
        scope_of(Someone("x", "a")),
        scope_of(Someone("x", "k/a")),
        scope_of(Someone("t/a", "")),
    }
    assert len(scopes) == 5
    assert scope_of(Someone("one", "acme")) == scope_of(Someone("two", "acme"))


def test_borders_between_the_parts_of_a_key_cannot_be_moved() -> None:
    """Text moved from one part into its neighbour must not give the same digest."""
    request = v1.EmbedRequest(inputs=["a"], context=v1.CallContext(user_id="bc"))
    moved = v1.EmbedRequest(inputs=["ca"], context=v1.CallContext(user_id="b"))
    assert embed_keys(request, "k/a", TOLD) != embed_keys(moved, "k/a", TOLD)
    assert generate_key(ask(), "k/ab", Source(b"c")) != generate_key(ask(), "k/a", Source(b"bc"))


def test_the_fingerprint_is_of_the_set() -> None:
    rows = [("openai", "gpt-5"), ("azure", "gpt-5-eu")]
    assert fingerprint(rows) == fingerprint(rows[::-1]) == fingerprint([*rows, rows[0]])
    assert fingerprint(rows) != fingerprint(rows[:1])
    assert fingerprint([("ab", "c")]) != fingerprint([("a", "bc")])
    assert fingerprint([("a",), ("b",)]) != fingerprint([("a", "b")])
    assert generate_key(ask(), "k/a", Source(fingerprint(rows))) != generate_key(
        ask(), "k/a", Source(fingerprint(rows[:1]))
    )


def test_generations_and_embeddings_never_share_a_key() -> None:
    request = v1.GenerateRequest(model="m")
    embed = v1.EmbedRequest(model="m", inputs=[""])
    assert generate_key(request, "k/a", SOURCE) != embed_keys(embed, "k/a", SOURCE)[0]
