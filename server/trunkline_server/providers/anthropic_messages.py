"""The Messages API's dialect: https://platform.claude.com/docs/en/api/messages."""

from collections.abc import Mapping
from urllib.parse import quote

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.anthropic_content import DIALECT
from trunkline_server.providers.anthropic_decode import decode_count, decode_message
from trunkline_server.providers.anthropic_encode import encode_body
from trunkline_server.providers.anthropic_errors import bad_response, decode_failure
from trunkline_server.providers.anthropic_stream import AnthropicStreamDecoder
from trunkline_server.providers.codec import CodecTarget, StreamDecoder, WireRequest

_PATH = "/v1/messages"
_VERSION = "2023-06-01"


class AnthropicMessagesCodec:
    """Translates to and from POST /v1/messages, version 2023-06-01.

    Flags, all optional:

    - `path` (str, "/v1/messages"): the path of a call. With `{model}` in it, the model's
      percent-encoded id stands there and not in the body.
    - `stream_path` (str, as `path`): the path of a streamed call.
    - `version` (str, "2023-06-01"): the API version.
    - `version_in_body` (bool, False): sends the version as the body's `anthropic_version`
      and not as the header `anthropic-version`.
    - `beta` (str, none): the value of the header `anthropic-beta`.
    - `count_path` (str, `path` with "/count_tokens"): where tokens are counted; empty for hosts
      that do not count. Hosts whose `path` holds the model do not, unless it is set.
    - `effort` (str, "adaptive"): how a reasoning effort is sent: "adaptive" as adaptive
      thinking with `output_config.effort`; "budget", for models before the effort scale, as a
      budget of 1024, 2048, 8192 or 24576 tokens from minimal to high, at most three quarters
      of the output limit.
    - `thinking_display` (bool, True): whether the host takes `thinking.display`, by which a
      readable account is asked for.

    - `send_user_id` (bool, False): sends the context's user_id as `metadata.user_id`.

    The vendor demands max_tokens: the caller's limit, else the deployment's, else 4096 with
    any thinking budget on top. What it has no field for is refused by field name, but for a
    message's `name` and a schema's `name`, which only label.

    Reasoning is given back when its part's signature names this dialect, and dropped when
    not, because the vendor refuses what it did not sign. Redacted reasoning carries a
    signature of the dialect with an empty value, to tell whose it is.

    Answers keep every block: text, thinking, redacted_thinking and tool_use as parts of the
    contract, all others (server_tool_use, the results of the vendor's own tools, compaction and
    what is not known) as vendor items, which go back as they came. Citations of texts become
    the contract's, and go back with the text by its signature.

    Of builtin tools the type goes with or without the vendor's version, and may need a `beta`:
    web_search, web_fetch, code_execution, or any word that ends in a version.
    """

    dialect = DIALECT

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        """See Codec."""
        body = encode_body(request, target, stream=stream)
        flags = target.flags
        path = str(flags.get("path", _PATH))
        if stream:
            path = str(flags.get("stream_path", path))
        if "{model}" in path:
            path = path.replace("{model}", quote(target.provider_model, safe="@"))
            del body["model"]
        headers: list[tuple[str, str]] = []
        version = str(flags.get("version", _VERSION))
        if flags.get("version_in_body"):
            body["anthropic_version"] = version
        else:
            headers.append(("anthropic-version", version))
        if flags.get("send_user_id") and request.context.user_id:
            body.setdefault("metadata", {"user_id": request.context.user_id})
        if "beta" in flags:
            headers.append(("anthropic-beta", str(flags["beta"])))
        return WireRequest(path=path, body=orjson.dumps(body), headers=tuple(headers))

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        """See Codec."""
        decode_message(body, into)

    def stream_decoder(self) -> StreamDecoder:
        """See Codec."""
        return AnthropicStreamDecoder()

    def encode_token_count(
        self, request: v1.CountTokensRequest, target: CodecTarget
    ) -> WireRequest | None:
        """See TokenCountCodec."""
        flags = target.flags
        path = str(flags.get("path", _PATH))
        path = str(flags.get("count_path", "" if "{model}" in path else f"{path}/count_tokens"))
        if not path:
            return None
        asked = v1.GenerateRequest(messages=request.messages, tools=request.tools)
        body = encode_body(asked, target, stream=False)
        # What is counted is only what is read.
        del body["max_tokens"]
        headers: list[tuple[str, str]] = []
        version = str(flags.get("version", _VERSION))
        if flags.get("version_in_body"):
            body["anthropic_version"] = version
        else:
            headers.append(("anthropic-version", version))
        if "beta" in flags:
            headers.append(("anthropic-beta", str(flags["beta"])))
        return WireRequest(path=path, body=orjson.dumps(body), headers=tuple(headers))

    def decode_token_count(self, body: bytes) -> int:
        """See TokenCountCodec."""
        return decode_count(body)

    def encode_embed(
        self,
        request: v1.EmbedRequest,
        target: CodecTarget,
    ) -> WireRequest:
        """Refuses: the dialect has no embeddings."""
        raise invalid("model", "this provider offers no embeddings")

    def decode_embed(
        self,
        body: bytes,
        into: v1.EmbedResponse,
    ) -> None:
        """Refuses: no request for vectors can have been sent."""
        raise bad_response("vectors, which its dialect does not have")

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """See Codec."""
        return decode_failure(status, headers, body)
