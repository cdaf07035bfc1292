"""Models that complete one prompt: their bodies for InvokeModel, and their answers by shape.

Shapes follow the model parameters of the Bedrock user guide; of all but Cohere's and AI21's
streams there are recorded answers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.bedrock_encode import plain
from trunkline_server.providers.codec import CodecTarget

Body = dict[str, Any]

# What is asked of Claude's first models, which demand a limit, where nobody sets one.
_DEFAULT_MAX_TOKENS = 2048


class _Form(NamedTuple):
    """The names of a body's fields; empty for what the model does not take. `config` is the
    object that holds all but the prompt, where there is one."""

    prompt: str
    limit: str
    top_p: str
    stop: str = ""
    top_k: str = ""
    config: str = ""


_FORMS: Mapping[str, _Form] = {
    "titan": _Form(
        "inputText", "maxTokenCount", "topP", "stopSequences", config="textGenerationConfig"
    ),
    "llama": _Form("prompt", "max_gen_len", "top_p"),
    "mistral": _Form("prompt", "max_tokens", "top_p", "stop", "top_k"),
    "cohere": _Form("prompt", "max_tokens", "p", "stop_sequences", "k"),
    "cohere_chat": _Form("message", "max_tokens", "p", "stop_sequences", "k"),
    "ai21": _Form("prompt", "maxTokens", "topP", "stopSequences"),
    "claude_text": _Form("prompt", "max_tokens_to_sample", "top_p", "stop_sequences", "top_k"),
}

_FINISH_REASONS: Mapping[str, v1.FinishReason.ValueType] = {
    "finish": v1.FINISH_REASON_STOP,
    "complete": v1.FINISH_REASON_STOP,
    "stop": v1.FINISH_REASON_STOP,
    "stop_sequence": v1.FINISH_REASON_STOP,
    "stop_criteria_met": v1.FINISH_REASON_STOP,
    "endoftext": v1.FINISH_REASON_STOP,
    "length": v1.FINISH_REASON_LENGTH,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "content_filtered": v1.FINISH_REASON_CONTENT_FILTER,
    "error_toxic": v1.FINISH_REASON_CONTENT_FILTER,
}


class Piece(NamedTuple):
    """A completion, or a piece of one: its text, the vendor's word for its end, and the counts
    of tokens, None for what is not told."""

    text: str
    word: str = ""
    read: int | None = None
    written: int | None = None


def encode_text(request: v1.GenerateRequest, target: CodecTarget) -> Body:
    """The body for a model, in the form that the flag `body` names.

    Raises TrunklineError(INVALID_REQUEST) naming the field for what the model cannot be told.
    """
    form = _FORMS.get(str(target.flags.get("body", "")))
    if form is None:
        raise invalid("model", "is of no known body; the flag body tells whose it takes")
    prompt = _prompt(request)
    if target.flags["body"] == "claude_text":
        prompt = f"\n\nHuman: {prompt}\n\nAssistant:"
    settings = _settings(request, form)
    if target.flags["body"] == "claude_text":
        settings.setdefault(form.limit, target.max_output_tokens or _DEFAULT_MAX_TOKENS)
    body: Body = {form.prompt: prompt}
    if form.config and settings:
        body[form.config] = settings
    else:
        body.update(settings)
    options = request.provider_options.fields
    for name in sorted(options):
        where = f"provider_options.{name}"
        if name == form.prompt:
            raise invalid(where, "may not be replaced")
        body[name] = plain(options[name], where)
    return body


def _prompt(request: v1.GenerateRequest) -> str:
    if len(request.messages) != 1 or request.messages[0].role != v1.ROLE_USER:
        raise invalid("messages", "must be one user message: this model completes one prompt")
    texts = []
    for index, part in enumerate(request.messages[0].parts):
        if part.WhichOneof("kind") != "text":
            raise invalid(f"messages[0].parts[{index}]", "must be text for this model")
        texts.append(part.text)
    for name, present in (
        ("tools", bool(request.tools)),
        ("tool_choice", request.HasField("tool_choice")),
        ("response_format", request.HasField("response_format")),
    ):
        if present:
            raise invalid(name, "this model only completes a prompt")
    return "".join(texts)


def _settings(request: v1.GenerateRequest, form: _Form) -> Body:
    config = request.config
    settings: Body = {}
    if config.HasField("max_output_tokens"):
        settings[form.limit] = config.max_output_tokens
    if config.HasField("temperature"):
        settings["temperature"] = config.temperature
    if config.HasField("top_p"):
        settings[form.top_p] = config.top_p
    if config.stop:
        if not form.stop:
            raise invalid("config.stop", "this model does not offer it")
        settings[form.stop] = list(config.stop)
    if config.HasField("top_k"):
        if not form.top_k:
            raise invalid("config.top_k", "this model does not offer it")
        settings[form.top_k] = config.top_k
    for name in ("seed", "presence_penalty", "frequency_penalty", "reasoning"):
        if config.HasField(name) and (name in {"seed", "reasoning"} or getattr(config, name)):
            raise invalid(f"config.{name}", "this model does not offer it")
    return settings


def decode_text(answer: Body, into: v1.GenerateResponse) -> None:
    """Fills the answer from a body that holds a completion; raises KeyError and its like for one
    that holds none."""
    piece = read_answer(answer)
    into.message.role = v1.ROLE_ASSISTANT
    into.message.parts.add().text = piece.text
    into.vendor_finish_reason = piece.word
    into.finish_reason = finish_reason(piece.word)
    into.model = answer.get("model") or ""
    count(piece, into.usage)
    if not into.usage.source:
        into.ClearField("usage")


def finish_reason(word: str) -> v1.FinishReason.ValueType:
    """Unspecified when the vendor gave none, OTHER for one that is not known."""
    if not word:
        return v1.FINISH_REASON_UNSPECIFIED
    return _FINISH_REASONS.get(word.lower(), v1.FINISH_REASON_OTHER)


def count(piece: Piece, usage: v1.Usage) -> None:
    """Fills the counts, if both were told."""
    if piece.read is not None and piece.written is not None:
        usage.input_tokens, usage.output_tokens = piece.read, piece.written
        usage.source = v1.USAGE_SOURCE_PROVIDER


def read_answer(answer: Body) -> Piece:
    """The completion of a whole answer."""
    if "results" in answer:
        (first, *_) = answer["results"]
        read, written = answer.get("inputTextTokenCount"), first.get("tokenCount")
        word = first.get("completionReason")
        return _piece(first["outputText"], word, read, written)
    if "completions" in answer:
        (first, *_) = answer["completions"]
        return _piece(first["data"]["text"], first["finishReason"]["reason"])
    if "choices" in answer:
        (first, *_) = answer["choices"]
        counts = answer.get("usage") or {}
        read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
        return _piece(first["text"], first.get("finish_reason"), read, written)
    if "generations" in answer:
        (first, *_) = answer["generations"]
        return _piece(first["text"], first.get("finish_reason"))
    return read_piece(answer)


def read_piece(chunk: Body) -> Piece:
    """A piece of a streamed completion, or a completion whose answer is no more than that."""
    if "outputText" in chunk:
        read, written = chunk.get("inputTextTokenCount"), chunk.get("totalOutputTextTokenCount")
        return _piece(chunk["outputText"], chunk.get("completionReason"), read, written)
    if "generation" in chunk:
        read, written = chunk.get("prompt_token_count"), chunk.get("generation_token_count")
        return _piece(chunk["generation"], chunk.get("stop_reason"), read, written)
    if "outputs" in chunk:
        (first, *_) = chunk["outputs"]
        return _piece(first["text"], first.get("stop_reason"))
    if "completion" in chunk:
        return _piece(chunk["completion"], chunk.get("stop_reason"))
    return _piece(chunk.get("text") or "", chunk["finish_reason"])


def _piece(text: Any, word: Any, read: Any = None, written: Any = None) -> Piece:
    if not isinstance(text, str) or not isinstance(word, str | None):
        raise TypeError("not a completion")
    return Piece(text, word or "", _whole(read), _whole(written))


def _whole(value: Any) -> int | None:
    """A count, which some answers write as 28.0."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 0:
        raise TypeError("not a count")
    return value
