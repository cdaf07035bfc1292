"""JSON values that satisfy a JSON Schema in the simplest way.

Understands what tool and answer schemas use: types (also upper-case, as Gemini writes them,
and lists of types), properties, required, items, enum, const, anyOf/oneOf/allOf, local $ref,
bounds of numbers, lengths and the common string formats. Patterns are not followed.
"""

import math
from typing import Any

Schema = dict[str, Any]

# Deep enough for real schemas; a recursive one must end somewhere.
_MAX_DEPTH = 24

_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class SchemaError(ValueError):
    """A schema that is not one."""


def sample(schema: Schema, name: str = "value") -> Any:
    """A value that satisfies the schema; `name` flavours its strings.

    Raises SchemaError when the schema's own shape is wrong.
    """
    try:
        return _value(schema, schema, name, 0)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        # Schemas are the caller's: any word of one may have any shape, and all is read here.
        raise SchemaError("the JSON Schema is malformed") from error


def sample_object(schema: Schema | None) -> dict[str, Any]:
    """As sample, for a schema of an object such as a tool's arguments; {} for none."""
    if not schema:
        return {}
    value = sample(schema)
    return value if isinstance(value, dict) else {}


def _value(schema: Any, root: Schema, name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    schema = _merge(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "any_of", "one_of"):
        if schema.get(word):
            return _value(_choose(schema[word], depth), root, name, depth + 1)
    return _typed(_kind(schema), schema, root, name, depth)


def _typed(kind: str, schema: Schema, root: Schema, name: str, depth: int) -> Any:
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, name, depth)
    if kind in {"integer", "number"}:
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    return None if kind == "null" else _string(schema, name)


def _merge(schema: Schema, root: Schema) -> Schema:
    """The schema with its local reference followed and its allOf members joined."""
    seen = 0
    while isinstance(reference := schema.get("$ref"), str) and seen < _MAX_DEPTH:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**_resolve(reference, root), **rest}
        seen += 1
    for member in schema.get("allOf", ()):
        merged = _merge(member, root)
        properties = {**schema.get("properties", {}), **merged.get("properties", {})}
        required = [*schema.get("required", ()), *merged.get("required", ())]
        schema = {**merged, **schema}
        if properties:
            schema = {**schema, "properties": properties, "required": required}
    return schema


def _resolve(reference: str, root: Schema) -> Schema:
    found: Any = root
    for step in reference.lstrip("#").strip("/").split("/"):
        if step and isinstance(found, dict):
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
    return found if isinstance(found, dict) else {}


def _choose(members: list[Any], depth: int) -> Any:
    """The first alternative; deep inside, one that ends a recursion if there is such."""
    if depth > _MAX_DEPTH // 3:
        for member in members:
            ends = isinstance(member, dict) and _kind(member) not in {"object", "array"}
            if ends and "$ref" not in member:
                return member
    return members[0]


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((word for word in kind if word != "null"), "null")
    if isinstance(kind, str):
        return kind.lower()
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _object(schema: Schema, root: Schema, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    wanted = schema.get("required") or properties
    if not all(isinstance(key, str) for key in wanted):
        raise TypeError("required holds what is no name")
    return {key: _value(properties.get(key, {}), root, key, depth + 1) for key in wanted}


def _array(schema: Schema, root: Schema, name: str, depth: int) -> list[Any]:
    if isinstance(prefix := schema.get("prefixItems"), list):
        return [_value(item, root, name, depth + 1) for item in prefix]
    least = int(schema.get("minItems", 0))
    # One item shows the shape; none ends a recursion and respects a maximum of zero.
    wanted = least or (0 if depth > _MAX_DEPTH // 3 else 1)
    size = min(wanted, int(schema.get("maxItems", wanted)))
    return [_value(schema.get("items", {}), root, name, depth + 1) for _ in range(size)]


def _number(schema: Schema, *, whole: bool) -> int | float:
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    between = None if above is None or below is None or whole else (above + below) / 2
    if above is not None:
        low = above + 1 if between is None else between
    if below is not None:
        high = below - 1 if between is None else between
    step = _bound(schema, "multipleOf") or (1 if whole else 0)
    value: int | float = 1 if whole else 1.5
    if low is not None:
        value = max(value, low)
    if high is not None:
        value = min(value, high)
    if step and value % step:
        upper = math.ceil(value / step) * step
        value = upper if high is None or upper <= high else math.floor(value / step) * step
    return int(value) if whole else value


def _bound(schema: Schema, word: str) -> int | float | None:
    value = schema.get(word)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _string(schema: Schema, name: str) -> str:
    known = _FORMATS.get(schema.get("format", ""))
    if known is not None:
        return known
    text = f"simulated {name}"
    least = int(schema.get("minLength", 0))
    if len(text) < least:
        text = text.ljust(least, ".")
    return text[: int(schema.get("maxLength", len(text)))]
