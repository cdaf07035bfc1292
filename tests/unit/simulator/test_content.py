"""Token counts, samples of schemas, prompt caches, signatures and vectors."""

import random
from typing import Any

import pytest

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Answer, Prompt, compose
from trunkline_server.simulator.embedding import embed
from trunkline_server.simulator.prompt_cache import CacheUse, PromptCache, Unit
from trunkline_server.simulator.sample import sample, sample_object
from trunkline_server.simulator.signature import is_signature_of, is_token, sign, token

# ASCII, combining, wide and astral characters.
ALPHABET = "ab .\n\u00e9\u0301\u4e2d\U0001f600"


def texts(seed: int, longest: int) -> list[str]:
    """Fifty texts of up to so many characters, the empty one among them."""
    rng = random.Random(seed)
    sizes = [0, 1, *(rng.randrange(longest + 1) for _ in range(48))]
    return ["".join(rng.choices(ALPHABET, k=size)) for size in sizes]


class TestTokens:
    @pytest.mark.parametrize(("text", "expected"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
    def test_count(self, text: str, expected: int) -> None:
        assert tokens.count(text) == expected

    @pytest.mark.parametrize("size", [1, 3, 20])
    def test_pieces_add_up(self, size: int) -> None:
        for text in texts(size, 200):
            pieces = list(tokens.pieces(text, size))
            assert "".join(pieces) == text
            assert sum(map(tokens.count, pieces)) == tokens.count(text)
            assert all(tokens.count(piece) == size for piece in pieces[:-1])

    @pytest.mark.parametrize("size", [0, 1, 7, 300])
    def test_fill_and_cut_are_exact(self, size: int) -> None:
        for text in texts(size, 50)[1:]:
            filled = tokens.fill(text or "x", size)
            assert tokens.count(filled) == size
            assert tokens.cut(filled, size // 2) == filled[: size // 2 * 4]


class TestSample:
    @pytest.mark.parametrize(
        ("schema", "expected"),
        [
            ({"type": "string"}, "simulated value"),
            ({"type": "string", "maxLength": 3}, "sim"),
            ({"type": "string", "minLength": 17}, "simulated value.."),
            ({"type": "string", "format": "date"}, "2026-01-02"),
            ({"type": "INTEGER"}, 1),
            ({"type": "integer", "minimum": 5}, 5),
            ({"type": "integer", "exclusiveMinimum": 5}, 6),
            ({"type": "integer", "maximum": -3}, -3),
            ({"type": "integer", "multipleOf": 7}, 7),
            ({"type": "number"}, 1.5),
            ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
            ({"type": "boolean"}, True),
            ({"type": "null"}, None),
            ({"type": ["null", "integer"]}, 1),
            ({"enum": ["b", "a"]}, "b"),
            ({"const": 7}, 7),
            ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
            ({"type": "array", "items": {"type": "integer"}}, [1]),
            ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
            ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
            ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}),
            ({"type": "object"}, {}),
        ],
    )
    def test_types(self, schema: dict[str, Any], expected: object) -> None:
        assert sample(schema) == expected

    def test_only_what_is_required_is_given(self) -> None:
        properties = {"a": {"type": "integer"}, "b": {"type": "integer"}}
        assert sample({"type": "object", "properties": properties, "required": ["b"]}) == {"b": 1}

    def test_references_and_parts(self) -> None:
        schema = {
            "$defs": {"n/1": {"type": "integer", "minimum": 3}},
            "allOf": [
                {"properties": {"a": {"$ref": "#/$defs/n~11"}}, "required": ["a"]},
                {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
            ],
        }
        assert sample(schema) == {"a": 3, "b": True}

    def test_recursion_ends(self) -> None:
        node = {
            "type": "object",
            "properties": {
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["children", "next"],
        }
        value = sample({"$defs": {"node": node}, "$ref": "#/$defs/node"})
        depth = 0
        while value is not None:
            assert isinstance(value["children"], list)
            value, depth = value["next"], depth + 1
        assert 1 < depth < 50

    def test_endless_references_end(self) -> None:
        assert sample_object({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}) == {}

    def test_no_schema_means_no_arguments(self) -> None:
        assert sample_object(None) == sample_object({}) == {}


class TestPromptCache:
    def test_short_prompts_are_not_cached(self) -> None:
        cache, units = PromptCache(), [Unit("a", 1023)]
        assert cache.implicit("s", units) == cache.implicit("s", units) == CacheUse()

    def test_longest_known_prefix_counts_in_steps(self) -> None:
        cache = PromptCache()
        first = [Unit("a", 1000), Unit("b", 100), Unit("c", 500)]
        assert cache.implicit("s", first).read == 0
        assert cache.implicit("s", first).read == 1536
        other = [Unit("a", 1000), Unit("b", 100), Unit("d", 500)]
        assert cache.implicit("s", other).read == 1024
        assert cache.implicit("another account", first).read == 0
        assert cache.implicit("s", [Unit("b", 1600)]).read == 0

    def test_marks(self) -> None:
        cache = PromptCache()
        head, middle, tail = Unit("a", 2000, "1h"), Unit("b", 300, "5m"), Unit("c", 50)
        assert cache.explicit("s", [head, middle, tail]) == CacheUse(0, 2300, 2000)
        assert cache.explicit("s", [head, middle, tail]) == CacheUse(2300, 0, 0)
        changed = Unit("x", 400, "5m")
        assert cache.explicit("s", [head, changed, tail]) == CacheUse(2000, 400, 0)
        assert cache.explicit("s", [Unit("z", 1000, "5m"), tail]) == CacheUse()

    def test_oldest_are_forgotten(self) -> None:
        cache = PromptCache(size=2)
        prompts = [[Unit(name, 2000)] for name in "abc"]
        for prompt in prompts:
            cache.implicit("s", prompt)
        assert cache.implicit("s", prompts[2]).read > 0
        assert cache.implicit("s", prompts[0]).read == 0


class TestSignatures:
    def test_of_a_text(self) -> None:
        assert is_signature_of(sign("thought"), "thought")
        assert not is_signature_of(sign("thought"), "thought!")
        assert not is_signature_of("", "thought")

    def test_tokens_prove_themselves_in_either_alphabet(self) -> None:
        for text in ("a", "b", "thought", "?>~"):
            made = token(text)
            assert is_token(made)
            assert is_token(made.replace("+", "-").replace("/", "_").rstrip("="))
            flipped = ("B" if made[0] == "A" else "A") + made[1:]
            assert not is_token(flipped)
        assert not is_token("")
        assert not is_token("not base64 é")


@pytest.mark.parametrize("dimensions", [1, 2, 16, 256])
def test_vectors_have_length_one(dimensions: int) -> None:
    for text in texts(dimensions, 60):
        vector = embed(text, dimensions)
        assert len(vector) == dimensions
        assert sum(x * x for x in vector) == pytest.approx(1.0)
        assert vector == embed(text, dimensions)


class TestAnswer:
    def _answer(self, text: str, **more: Any) -> Answer:
        prompt = Prompt("sim-x", message_count=1, last_user_text=text, **more)
        return compose(prompt, CacheUse())

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("please call add", ["add"]),
            ("Call add, and then mul.", ["add", "mul"]),
            ("call mul and add and mul", ["mul", "add", "mul"]),
            ("add and mul", []),
            ("add before call", []),
            ("recall add", []),
            ("call other", []),
        ],
    )
    def test_calls_that_a_text_asks_for(self, text: str, names: list[str]) -> None:
        answer = self._answer(text, tools={"add": None, "mul": None})
        assert [call.name for call in answer.calls] == names
        assert answer.finish == ("tool_calls" if names else "stop")
        assert bool(answer.text) is not bool(names)

    def test_choice(self) -> None:
        tools: Any = {"add": None, "mul": None}
        assert not self._answer("call add", tools=tools, tool_mode="none").calls
        forced = self._answer("hi", tools=tools, tool_mode="required", tool_names=("mul",))
        assert [call.name for call in forced.calls] == ["mul"]
        alone = self._answer("call add and mul", tools=tools, parallel=False)
        assert [call.name for call in alone.calls] == ["add"]

    def test_results_are_quoted_not_called_again(self) -> None:
        answer = self._answer("call add", tools={"add": None}, results=[("add", "7")])
        assert not answer.calls
        assert "add: 7" in answer.text

    def test_first_stop_text_wins(self) -> None:
        answer = self._answer("one two three", stop=["three", "two"])
        assert answer.text.endswith("one ")
        assert (answer.finish, answer.stop_text) == ("stop_text", "two")

    @pytest.mark.parametrize("limit", [1, 5, 12, 20])
    def test_limit_holds_reasoning_and_text(self, limit: int) -> None:
        answer = self._answer("x" * 100, think=True, max_tokens=limit)
        assert answer.finish == "length"
        assert answer.output_tokens == limit

    def test_calls_beyond_the_limit_are_dropped(self) -> None:
        answer = self._answer("call add and add", tools={"add": None}, max_tokens=3)
        assert len(answer.calls) == 1
        assert answer.finish == "length"

    def test_long_texts_are_echoed_in_part(self) -> None:
        answer = self._answer("y" * 5000)
        assert answer.text.count("y") == 200

    def test_a_filter_cuts_text_and_stops_calls(self) -> None:
        prompt = Prompt("sim-x", last_user_text="call add", tools={"add": None})
        answer = compose(prompt, CacheUse(), filtered=True)
        assert (answer.finish, answer.calls) == ("filter", [])
        assert answer.text.startswith("Simulated answer")
        assert "call add" not in answer.text
