"""Each stated bound, from both of its sides, and whatever else a wire may bring."""

import math
from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.rpc.validation import validate_embed, validate_generate, validate_route

INF = math.inf
NAN = math.nan
UNKNOWN = 99


def text(content: str = "hi") -> v1.Part:
    return v1.Part(text=content)


def user(*parts: v1.Part) -> v1.Message:
    return v1.Message(role=v1.ROLE_USER, parts=parts or [text()])


def assistant(*parts: v1.Part) -> v1.Message:
    return v1.Message(role=v1.ROLE_ASSISTANT, parts=parts)


def tool(*parts: v1.Part) -> v1.Message:
    return v1.Message(role=v1.ROLE_TOOL, parts=parts)


def system(*parts: v1.Part) -> v1.Message:
    return v1.Message(role=v1.ROLE_SYSTEM, parts=parts or [text()])


def call(call_id: str = "c1", name: str = "weather") -> v1.Part:
    return v1.Part(tool_call=v1.ToolCall(id=call_id, name=name, arguments_json="not even JSON"))


def result(call_id: str = "c1", *parts: v1.Part) -> v1.Part:
    return v1.Part(tool_result=v1.ToolResult(tool_call_id=call_id, parts=parts))


def reasoning() -> v1.Part:
    return v1.Part(reasoning=v1.Reasoning(text="hm"))


def image(**fields: object) -> v1.Part:
    part = v1.Part()
    part.image.MergeFrom(v1.Image(**fields))  # type: ignore[arg-type] # any of its fields
    return part


PNG = v1.Part(image=v1.Image(data=b"\x89PNG", media_type="image/png"))
WAV = v1.Part(audio=v1.Audio(data=b"RIFF", media_type="audio/wav"))
PDF = v1.Part(file=v1.File(data=b"%PDF", media_type="application/pdf"))


def talk(*messages: v1.Message) -> v1.GenerateRequest:
    return v1.GenerateRequest(messages=messages)


def with_config(**fields: object) -> v1.GenerateRequest:
    config = v1.GenerationConfig(**fields)  # type: ignore[arg-type] # any of its fields
    return v1.GenerateRequest(messages=[user()], config=config)


def with_tools(*tools: v1.Tool, choice: v1.ToolChoice | None = None) -> v1.GenerateRequest:
    return v1.GenerateRequest(messages=[user()], tools=tools, tool_choice=choice)


def choose(mode: int, name: str = "") -> v1.ToolChoice:
    choice = v1.ToolChoice(name=name)
    choice.mode = mode  # type: ignore[assignment] # unknown numbers are part of the test
    return choice


def with_schema(**fields: str) -> v1.GenerateRequest:
    schema = v1.JsonSchema(**fields)  # type: ignore[arg-type] # any of its texts
    response_format = v1.ResponseFormat(json_schema=schema)
    return v1.GenerateRequest(messages=[user()], response_format=response_format)


def with_role(number: int) -> v1.GenerateRequest:
    request = talk(user(), user())
    request.messages[1].role = number  # type: ignore[assignment] # as above
    return request


def parsed(fields: bytes) -> v1.GenerateRequest:
    """A valid request with these wire bytes behind it."""
    return v1.GenerateRequest.FromString(talk(user()).SerializeToString() + fields)


SEARCH = v1.BuiltinTool(type="web_search")


def builtin(**fields: str) -> v1.Tool:
    tool = v1.Tool(builtin=SEARCH)
    for name, value in fields.items():
        setattr(tool.builtin, name, value)
    return tool


def item(**fields: str) -> v1.Part:
    kept = v1.VendorItem(dialect="openai_responses", type="x", json="{}")
    for name, value in fields.items():
        setattr(kept, name, value)
    return v1.Part(vendor_item=kept)


WEATHER = v1.Tool(name="weather", parameters_json='{"type": "object"}')
CLOCK = v1.Tool(name="clock")

GENERATE: dict[str, tuple[v1.GenerateRequest, list[str]]] = {
    # Messages.
    "no messages": (v1.GenerateRequest(), ["messages"]),
    "only system": (talk(system(), system()), ["messages"]),
    "role unset": (with_role(v1.ROLE_UNSPECIFIED), ["messages[1].role"]),
    "role unknown": (with_role(UNKNOWN), ["messages[1].role"]),
    "role negative": (with_role(-1), ["messages[1].role"]),
    "user without parts": (talk(v1.Message(role=v1.ROLE_USER)), ["messages[0].parts"]),
    "system without parts": (
        talk(user(), v1.Message(role=v1.ROLE_SYSTEM)),
        ["messages[1].parts"],
    ),
    "tool without parts": (talk(user(), tool()), ["messages[1].parts"]),
    "part without kind": (talk(user(text(), v1.Part())), ["messages[0].parts[1]"]),
    "part with only a mark": (
        talk(user(v1.Part(cache_breakpoint=True))),
        ["messages[0].parts[0]"],
    ),
    # Which part stands where.
    "call by user": (talk(user(call())), ["messages[0].parts[0].tool_call"]),
    "call by system": (talk(user(), system(call())), ["messages[1].parts[0].tool_call"]),
    "result by user": (
        talk(user(), assistant(call()), user(text(), result())),
        ["messages[2].parts[1].tool_result"],
    ),
    "reasoning by user": (talk(user(reasoning())), ["messages[0].parts[0].reasoning"]),
    "vendor's item by assistant": (talk(user(), assistant(item(), text(), item())), []),
    "vendor's item by user": (talk(user(item())), ["messages[0].parts[0].vendor_item"]),
    "vendor's item by tool": (
        talk(user(), assistant(call()), tool(result(), item())),
        ["messages[2].parts[1].vendor_item"],
    ),
    "vendor's item within a result": (
        talk(user(), assistant(call()), tool(result("c1", item()))),
        ["messages[2].parts[0].tool_result.parts[0].vendor_item"],
    ),
    "vendor's item of nobody": (
        talk(user(), assistant(item(dialect="", type="", json="7"))),
        [f"messages[1].parts[0].vendor_item.{name}" for name in ("dialect", "type", "json")],
    ),
    "sources and citations": (
        talk(
            user(),
            v1.Message(
                role=v1.ROLE_ASSISTANT,
                parts=[text()],
                sources=[v1.Source()],
                citations=[v1.Citation(part_index=9, start=-1, source_indexes=[7])],
            ),
        ),
        [],
    ),
    "text by tool": (
        talk(user(), assistant(call()), tool(result(), text())),
        ["messages[2].parts[1].text"],
    ),
    "image by tool": (talk(user(), tool(PNG)), ["messages[1].parts[0].image"]),
    "call by tool": (talk(user(), tool(call())), ["messages[1].parts[0].tool_call"]),
    # Tool calls and their results.
    "call without id": (
        talk(user(), assistant(call(""))),
        ["messages[1].parts[0].tool_call.id"],
    ),
    "call without name": (
        talk(user(), assistant(call(name=""))),
        ["messages[1].parts[0].tool_call.name"],
    ),
    "two calls with one id": (
        talk(user(), assistant(call(), call())),
        ["messages[1].parts[1].tool_call.id"],
    ),
    "id again before its result": (
        talk(user(), assistant(call()), user(), assistant(call())),
        ["messages[3].parts[0].tool_call.id"],
    ),
    "result without id": (
        talk(user(), assistant(call()), tool(result(""))),
        ["messages[2].parts[0].tool_result.tool_call_id"],
    ),
    "result of an unknown call": (
        talk(user(), assistant(call()), tool(result("c2"))),
        ["messages[2].parts[0].tool_result.tool_call_id"],
    ),
    "result before its call": (
        talk(user(), tool(result()), assistant(call())),
        ["messages[1].parts[0].tool_result.tool_call_id"],
    ),
    "empty part in a result": (
        talk(user(), assistant(call()), tool(result("c1", text(), v1.Part()))),
        ["messages[2].parts[0].tool_result.parts[1]"],
    ),
    "audio in a result": (
        talk(user(), assistant(call()), tool(result("c1", WAV))),
        ["messages[2].parts[0].tool_result.parts[0].audio"],
    ),
    "result in a result": (
        talk(user(), assistant(call()), tool(result("c1", result()))),
        ["messages[2].parts[0].tool_result.parts[0].tool_result"],
    ),
    "bad image in a result": (
        talk(user(), assistant(call()), tool(result("c1", image(data=b"x")))),
        ["messages[2].parts[0].tool_result.parts[0].image.media_type"],
    ),
    # Media.
    "image without source": (
        talk(user(image(media_type="image/png"))),
        ["messages[0].parts[0].image"],
    ),
    "image without type": (
        talk(user(image(data=b"x"))),
        ["messages[0].parts[0].image.media_type"],
    ),
    "image too large": (
        talk(user(image(data=bytes(20 * 1024 * 1024 + 1), media_type="image/png"))),
        ["messages[0].parts[0].image.data"],
    ),
    "image by http": (
        talk(user(image(uri="http://example.com/a.png"))),
        ["messages[0].parts[0].image.uri"],
    ),
    "image by file": (
        talk(user(image(uri="file:///etc/passwd"))),
        ["messages[0].parts[0].image.uri"],
    ),
    "image by no uri": (talk(user(image(uri=""))), ["messages[0].parts[0].image.uri"]),
    "audio without source": (
        talk(user(v1.Part(audio=v1.Audio()))),
        ["messages[0].parts[0].audio"],
    ),
    "audio without type": (
        talk(user(v1.Part(audio=v1.Audio(data=b"x")))),
        ["messages[0].parts[0].audio.media_type"],
    ),
    "file without source": (
        talk(user(v1.Part(file=v1.File(filename="a.pdf")))),
        ["messages[0].parts[0].file"],
    ),
    "file without type": (
        talk(user(v1.Part(file=v1.File(data=b"x")))),
        ["messages[0].parts[0].file.media_type"],
    ),
    "file by no id": (
        talk(user(v1.Part(file=v1.File(file_id="")))),
        ["messages[0].parts[0].file.file_id"],
    ),
    # Knobs.
    "no output": (with_config(max_output_tokens=0), ["config.max_output_tokens"]),
    "output negative": (with_config(max_output_tokens=-1), ["config.max_output_tokens"]),
    "temperature high": (with_config(temperature=2.001), ["config.temperature"]),
    "temperature negative": (with_config(temperature=-0.001), ["config.temperature"]),
    "temperature nan": (with_config(temperature=NAN), ["config.temperature"]),
    "temperature inf": (with_config(temperature=INF), ["config.temperature"]),
    "top_p zero": (with_config(top_p=0.0), ["config.top_p"]),
    "top_p high": (with_config(top_p=1.001), ["config.top_p"]),
    "top_p nan": (with_config(top_p=NAN), ["config.top_p"]),
    "top_k zero": (with_config(top_k=0), ["config.top_k"]),
    "presence high": (with_config(presence_penalty=2.001), ["config.presence_penalty"]),
    "presence nan": (with_config(presence_penalty=NAN), ["config.presence_penalty"]),
    "frequency low": (with_config(frequency_penalty=-2.001), ["config.frequency_penalty"]),
    "frequency -inf": (with_config(frequency_penalty=-INF), ["config.frequency_penalty"]),
    "many stops": (with_config(stop=["x"] * 17), ["config.stop"]),
    "empty stop": (with_config(stop=["x", ""]), ["config.stop[1]"]),
    "effort unknown": (
        parsed(b"\x1a\x04\x4a\x02\x08\x63"),  # config.reasoning.effort = 99
        ["config.reasoning.effort"],
    ),
    "budget negative": (
        with_config(reasoning=v1.ReasoningConfig(budget_tokens=-1)),
        ["config.reasoning.budget_tokens"],
    ),
    # Tools.
    "many tools": (with_tools(*(v1.Tool(name=f"t{n}") for n in range(257))), ["tools"]),
    "tool without name": (with_tools(v1.Tool()), ["tools[0].name"]),
    "tool name too long": (with_tools(v1.Tool(name="a" * 65)), ["tools[0].name"]),
    "tool name with a dot": (with_tools(v1.Tool(name="a.b")), ["tools[0].name"]),
    "tool name beyond ASCII": (with_tools(v1.Tool(name="é")), ["tools[0].name"]),
    "tool name with a line end": (with_tools(v1.Tool(name="a\n")), ["tools[0].name"]),
    "vendor's tool": (with_tools(builtin(), builtin(), WEATHER), []),
    "vendor's tool with options": (with_tools(builtin(options_json='{"a": 1}')), []),
    "vendor's tool without type": (with_tools(builtin(type="")), ["tools[0].builtin.type"]),
    "vendor's tool with wrong options": (
        with_tools(builtin(options_json="[]")),
        ["tools[0].builtin.options_json"],
    ),
    "vendor's tool with more beside it": (
        with_tools(
            v1.Tool(name="a", description="b", parameters_json="{}", strict=True, builtin=SEARCH)
        ),
        [f"tools[0].{name}" for name in ("name", "description", "parameters_json", "strict")],
    ),
    "required beside a vendor's tool": (
        with_tools(builtin(), choice=choose(v1.TOOL_CHOICE_MODE_REQUIRED)),
        [],
    ),
    "tool twice": (with_tools(WEATHER, CLOCK, WEATHER), ["tools[2].name"]),
    "parameters not JSON": (
        with_tools(v1.Tool(name="a", parameters_json="{")),
        ["tools[0].parameters_json"],
    ),
    "parameters not an object": (
        with_tools(CLOCK, v1.Tool(name="a", parameters_json="[]")),
        ["tools[1].parameters_json"],
    ),
    "parameters with NaN": (
        with_tools(v1.Tool(name="a", parameters_json='{"a": NaN}')),
        ["tools[0].parameters_json"],
    ),
    "parameters too deep": (
        with_tools(v1.Tool(name="a", parameters_json='{"a":' * 5000 + "1" + "}" * 5000)),
        ["tools[0].parameters_json"],
    ),
    "choice mode unknown": (with_tools(WEATHER, choice=choose(UNKNOWN)), ["tool_choice.mode"]),
    "required without tools": (
        with_tools(choice=choose(v1.TOOL_CHOICE_MODE_REQUIRED)),
        ["tool_choice.mode"],
    ),
    "none without tools": (
        with_tools(choice=choose(v1.TOOL_CHOICE_MODE_NONE)),
        ["tool_choice.mode"],
    ),
    "choice of an unknown tool": (
        with_tools(WEATHER, choice=choose(v1.TOOL_CHOICE_MODE_REQUIRED, "clock")),
        ["tool_choice.name"],
    ),
    "name without required": (
        with_tools(WEATHER, choice=choose(v1.TOOL_CHOICE_MODE_AUTO, "weather")),
        ["tool_choice.name"],
    ),
    "name without mode": (
        with_tools(WEATHER, choice=choose(v1.TOOL_CHOICE_MODE_UNSPECIFIED, "weather")),
        ["tool_choice.name"],
    ),
    # The answer's shape.
    "no schema": (with_schema(name="x"), ["response_format.json_schema.schema_json"]),
    "schema not JSON": (
        with_schema(schema_json="{]"),
        ["response_format.json_schema.schema_json"],
    ),
    "schema not an object": (
        with_schema(schema_json='"x"'),
        ["response_format.json_schema.schema_json"],
    ),
    "schema name": (
        with_schema(name="a b", schema_json="{}"),
        ["response_format.json_schema.name"],
    ),
    "schema name too long": (
        with_schema(name="a" * 65, schema_json="{}"),
        ["response_format.json_schema.name"],
    ),
    # The cache and the id.
    "cache mode unknown": (parsed(b"\x4a\x02\x08\x63"), ["cache.mode"]),
    "ttl negative": (
        v1.GenerateRequest(messages=[user()], cache=v1.CachePolicy(ttl=Duration(seconds=-1))),
        ["cache.ttl"],
    ),
    "ttl negative by nanos": (
        v1.GenerateRequest(messages=[user()], cache=v1.CachePolicy(ttl=Duration(nanos=-1))),
        ["cache.ttl"],
    ),
    "request id too long": (
        v1.GenerateRequest(messages=[user()], request_id="a" * 129),
        ["request_id"],
    ),
    "request id beyond ASCII": (
        v1.GenerateRequest(messages=[user()], request_id="é"),
        ["request_id"],
    ),
    "request id with a line end": (
        v1.GenerateRequest(messages=[user()], request_id="a\nb"),
        ["request_id"],
    ),
    "request id ends in a line end": (
        v1.GenerateRequest(messages=[user()], request_id="a\n"),
        ["request_id"],
    ),
    # Several at once, in the order of the checks.
    "several": (
        v1.GenerateRequest(
            model="m" * 257,
            messages=[user(v1.Part()), assistant(call("", ""))],
            config=v1.GenerationConfig(temperature=3, top_p=0),
            tools=[v1.Tool()],
        ),
        [
            "messages[0].parts[0]",
            "messages[1].parts[0].tool_call.id",
            "messages[1].parts[0].tool_call.name",
            "config.temperature",
            "config.top_p",
            "tools[0].name",
            "model",
        ],
    ),
}

# The fields that all three requests share, by the name of the case.
SHARED: dict[str, tuple[dict[str, object], list[str]]] = {
    "model too long": ({"model": "m" * 257}, ["model"]),
    "cost negative": (
        {"requirements": v1.Requirements(max_cost_per_token=-1e-9)},
        ["requirements.max_cost_per_token"],
    ),
    "cost nan": (
        {"requirements": v1.Requirements(max_cost_per_token=NAN)},
        ["requirements.max_cost_per_token"],
    ),
    "cost inf": (
        {"requirements": v1.Requirements(max_cost_per_token=INF)},
        ["requirements.max_cost_per_token"],
    ),
    "latency negative": (
        {"requirements": v1.Requirements(max_latency_ms=-1)},
        ["requirements.max_latency_ms"],
    ),
    "quality negative": (
        {"requirements": v1.Requirements(min_quality=-0.1)},
        ["requirements.min_quality"],
    ),
    "quality high": (
        {"requirements": v1.Requirements(min_quality=1.1)},
        ["requirements.min_quality"],
    ),
    "quality nan": (
        {"requirements": v1.Requirements(min_quality=NAN)},
        ["requirements.min_quality"],
    ),
    "strategy unknown": (
        {"routing": v1.RoutingOptions.FromString(b"\x08\x63")},
        ["routing.strategy"],
    ),
    "allowed and denied": (
        {
            "routing": v1.RoutingOptions(
                allowed_providers=["a", "b"], denied_providers=["c", "b", "a"]
            )
        },
        ["routing.denied_providers[1]", "routing.denied_providers[2]"],
    ),
    "many labels": (
        {"context": v1.CallContext(labels={str(n): "" for n in range(33)})},
        ["context.labels"],
    ),
    "label key too long": (
        {"context": v1.CallContext(labels={"k" * 65: ""})},
        ["context.labels"],
    ),
    "label value too long": (
        {"context": v1.CallContext(labels={"k": "v" * 257})},
        ["context.labels"],
    ),
}

EMBED: dict[str, tuple[v1.EmbedRequest, list[str]]] = {
    "no inputs": (v1.EmbedRequest(), ["inputs"]),
    "many inputs": (v1.EmbedRequest(inputs=["x"] * 2049), ["inputs"]),
    "empty input": (v1.EmbedRequest(inputs=["x", "", "y", ""]), ["inputs[1]", "inputs[3]"]),
    "no dimensions": (v1.EmbedRequest(inputs=["x"], dimensions=0), ["dimensions"]),
    "dimensions negative": (v1.EmbedRequest(inputs=["x"], dimensions=-5), ["dimensions"]),
    "task unknown": (v1.EmbedRequest.FromString(b"\x12\x01x\x20\x63"), ["task"]),
    "cache mode unknown": (
        v1.EmbedRequest.FromString(b"\x12\x01x\x3a\x02\x08\x63"),
        ["cache.mode"],
    ),
    "request id": (v1.EmbedRequest(inputs=["x"], request_id="\x7f"), ["request_id"]),
}

ROUTE: dict[str, tuple[v1.RouteRequest, list[str]]] = {
    "input negative": (v1.RouteRequest(input_tokens=-1), ["input_tokens"]),
    "output negative": (v1.RouteRequest(max_output_tokens=-1), ["max_output_tokens"]),
}


def violations(check: Callable[[], None]) -> list[str]:
    """The paths that the check complains of."""
    try:
        check()
    except TrunklineError as raised:
        error = raised
    else:
        return []
    assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert all(violation.description for violation in error.violations)
    assert error.metadata == {"field": error.violations[0].field}
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize("name", GENERATE)
def test_generate(name: str) -> None:
    request, expected = GENERATE[name]
    before = request.SerializeToString(deterministic=True)
    assert violations(lambda: validate_generate(request)) == expected
    assert request.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", EMBED)
def test_embed(name: str) -> None:
    request, expected = EMBED[name]
    assert violations(lambda: validate_embed(request)) == expected


@pytest.mark.parametrize("name", ROUTE)
def test_route(name: str) -> None:
    request, expected = ROUTE[name]
    assert violations(lambda: validate_route(request)) == expected


@pytest.mark.parametrize("name", SHARED)
def test_shared_fields(name: str) -> None:
    fields, expected = SHARED[name]
    # Each case is a field or two that all three requests have.
    generate = v1.GenerateRequest(messages=[user()], **fields)  # type: ignore[arg-type]
    embed = v1.EmbedRequest(inputs=["x"], **fields)  # type: ignore[arg-type]
    route = v1.RouteRequest(**fields)  # type: ignore[arg-type]
    assert violations(lambda: validate_generate(generate)) == expected
    assert violations(lambda: validate_embed(embed)) == expected
    assert violations(lambda: validate_route(route)) == expected


VALID: dict[str, v1.GenerateRequest] = {
    "least": talk(user()),
    "systems anywhere": talk(system(), user(), system(), assistant(text()), user()),
    "only assistant": talk(assistant(text())),
    "assistant without output": talk(user(), assistant(), user()),
    "empty text": talk(user(text(""))),
    "media": talk(user(PNG, WAV, PDF)),
    "media by reference": talk(
        user(
            image(uri="https://example.com/a.png"),
            image(uri="gs://bucket/a.png"),
            image(uri="data:image/png;base64,AA=="),
            image(uri="HTTPS://EXAMPLE.COM/A.PNG", detail=v1.IMAGE_DETAIL_HIGH),
            v1.Part(audio=v1.Audio(uri="https://example.com/a.wav")),
            v1.Part(file=v1.File(uri="gs://bucket/a.pdf")),
            v1.Part(file=v1.File(file_id="file-1")),
        )
    ),
    "largest image": talk(user(image(data=bytes(20 * 1024 * 1024), media_type="image/png"))),
    "tools in turn": talk(
        user(),
        assistant(reasoning(), text(), call("a"), call("b")),
        tool(result("b", text(), PNG, PDF), result("a")),
        assistant(text()),
    ),
    "results in several messages": talk(
        user(), assistant(call("a"), call("b")), tool(result("a")), tool(result("b"))
    ),
    "id again after its result": talk(
        user(), assistant(call()), tool(result()), assistant(call()), tool(result())
    ),
    "call without result": talk(user(), assistant(call()), user()),
    "bounds from below": with_config(
        max_output_tokens=1,
        temperature=0.0,
        top_p=5e-324,
        top_k=1,
        presence_penalty=-2,
        frequency_penalty=-2,
        seed=-1,
        reasoning=v1.ReasoningConfig(budget_tokens=0),
    ),
    "bounds from above": with_config(
        max_output_tokens=2**31 - 1,
        temperature=2.0,
        top_p=1.0,
        presence_penalty=2,
        frequency_penalty=2,
        stop=["x"] * 16,
        reasoning=v1.ReasoningConfig(effort=v1.REASONING_EFFORT_HIGH),
    ),
    "most tools": with_tools(*(v1.Tool(name=f"t{n}") for n in range(256))),
    "longest tool name": with_tools(v1.Tool(name="aZ0_-" + "x" * 59)),
    "one tool required": with_tools(
        WEATHER, CLOCK, choice=choose(v1.TOOL_CHOICE_MODE_REQUIRED, "clock")
    ),
    "no tool may be called": with_tools(WEATHER, choice=choose(v1.TOOL_CHOICE_MODE_NONE)),
    "auto without tools": with_tools(choice=choose(v1.TOOL_CHOICE_MODE_AUTO)),
    "free text": v1.GenerateRequest(messages=[user()], response_format=v1.ResponseFormat()),
    "any object": v1.GenerateRequest(
        messages=[user()], response_format=v1.ResponseFormat(json_object=v1.JsonObject())
    ),
    "schema": with_schema(schema_json='{"type": "object"}'),
    "everything around": v1.GenerateRequest(
        model="m" * 256,
        messages=[user()],
        requirements=v1.Requirements(
            capabilities=["tools"], max_cost_per_token=1e-5, max_latency_ms=1, min_quality=1
        ),
        routing=v1.RoutingOptions(
            strategy=v1.STRATEGY_BALANCED, allowed_providers=["a"], denied_providers=["b"]
        ),
        cache=v1.CachePolicy(mode=v1.CACHE_MODE_REFRESH, ttl=Duration(nanos=999_999_999)),
        context=v1.CallContext(labels={("k" * 62 + f"{n:02}"): "v" * 256 for n in range(32)}),
        request_id=" ~" * 64,
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_valid(name: str) -> None:
    assert violations(lambda: validate_generate(VALID[name])) == []


def test_valid_embed_and_route() -> None:
    most = v1.EmbedRequest(inputs=["x"] * 2048, dimensions=1, task=v1.EMBED_TASK_CLUSTERING)
    assert violations(lambda: validate_embed(v1.EmbedRequest(inputs=["x"]))) == []
    assert violations(lambda: validate_embed(most)) == []
    assert violations(lambda: validate_route(v1.RouteRequest())) == []
    assert violations(lambda: validate_route(v1.RouteRequest(input_tokens=2**62))) == []


def test_at_most_twenty_are_told() -> None:
    request = talk(*(user(v1.Part()) for _ in range(1000)))
    paths = violations(lambda: validate_generate(request))
    assert paths == [f"messages[{n}].parts[0]" for n in range(20)]


def test_twenty_are_told_all() -> None:
    request = talk(*(user(v1.Part()) for _ in range(20)))
    assert len(violations(lambda: validate_generate(request))) == 20


def test_nothing_of_the_payload_is_told() -> None:
    secret = "s3cret"
    request = v1.GenerateRequest(
        model=secret * 100,
        messages=[
            user(image(uri=secret), image(data=secret.encode())),
            tool(result(secret)),
            assistant(call(secret), call(secret), call(secret, "")),
        ],
        tools=[v1.Tool(name=f"{secret}.", parameters_json=secret)],
        tool_choice=v1.ToolChoice(name=secret),
        context=v1.CallContext(labels={secret * 20: secret * 100}),
        routing=v1.RoutingOptions(allowed_providers=[secret], denied_providers=[secret]),
        request_id=f"{secret}\n",
    )
    with pytest.raises(TrunklineError) as caught:
        validate_generate(request)
    assert len(caught.value.violations) >= 12
    assert secret not in repr(caught.value.violations) + str(caught.value)
