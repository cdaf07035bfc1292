"""Gemini replies: message, finish reason and usage of a whole answer, and vectors."""

from collections.abc import Mapping

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.common import shorten
from trunkline_server.providers.gemini_errors import reported_error
from trunkline_server.providers.gemini_grounding import findings, note_grounding
from trunkline_server.providers.gemini_json import (
    Json,
    as_object,
    count_at,
    list_at,
    object_at,
    read_document,
    senseless,
    text_at,
)
from trunkline_server.providers.gemini_parts import PartReader
from trunkline_server.providers.references import References

# By name, and by number where the Gemini API and Vertex AI agree on it: JSON of protocol
# buffers may show an enum as either.
_FINISH: Mapping[str, v1.FinishReason.ValueType] = {
    "STOP": v1.FINISH_REASON_STOP,
    "1": v1.FINISH_REASON_STOP,
    "MAX_TOKENS": v1.FINISH_REASON_LENGTH,
    "2": v1.FINISH_REASON_LENGTH,
    "CONTINUATION": v1.FINISH_REASON_LENGTH,
    "SAFETY": v1.FINISH_REASON_CONTENT_FILTER,
    "3": v1.FINISH_REASON_CONTENT_FILTER,
    "RECITATION": v1.FINISH_REASON_CONTENT_FILTER,
    "4": v1.FINISH_REASON_CONTENT_FILTER,
    "BLOCKLIST": v1.FINISH_REASON_CONTENT_FILTER,
    "PROHIBITED_CONTENT": v1.FINISH_REASON_CONTENT_FILTER,
    "SPII": v1.FINISH_REASON_CONTENT_FILTER,
    "MODEL_ARMOR": v1.FINISH_REASON_CONTENT_FILTER,
    "ESCALATION": v1.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_SAFETY": v1.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": v1.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_RECITATION": v1.FINISH_REASON_CONTENT_FILTER,
}
_NOT_FINISHED = frozenset(("", "0", "FINISH_REASON_UNSPECIFIED"))
_AUDIO = ("AUDIO", 4)
_IMAGE = ("IMAGE", 2)
# What tells of sources.
BESIDE_CONTENT = frozenset(("groundingMetadata", "citationMetadata", "urlContextMetadata"))


def decode_generate(body: bytes, into: v1.GenerateResponse) -> None:
    """As Codec.decode_generate asks."""
    reply = read_document(body)
    candidate = first_candidate(reply)
    if candidate is None:
        raise senseless("has neither a candidate nor a reason for having none")
    word = finish_word(candidate)
    reader = PartReader()
    content = object_at(candidate, "content")
    pieces = reader.read(list_at(content, "parts"), text_at(reply, "responseId"), ended=True)
    message = into.message
    message.role = v1.ROLE_ASSISTANT
    parts = message.parts
    for piece in pieces:
        if piece.continues:
            # Within one reply only a signature comes after its part.
            parts[piece.part_index].signature.CopyFrom(piece.part.signature)
        else:
            parts.append(piece.part)
    into.finish_reason = finish_reason(word, calls=reader.has_calls)
    into.vendor_finish_reason = word
    into.model = text_at(reply, "modelVersion")
    read_usage(reply, into.usage)
    if not BESIDE_CONTENT.isdisjoint(candidate):
        references = References()
        texts = {i: part.text for i, part in enumerate(parts) if part.WhichOneof("kind") == "text"}
        note_grounding(candidate, texts, references)
        references.fill(message)
        into.usage.search_units = searches(candidate)
    into.filter_findings.extend(filter_findings(reply, candidate))


def filter_findings(reply: Json, candidate: Json) -> list[v1.FilterFinding]:
    """What the vendor's filters say of prompt and answer, in a reply."""
    found = []
    if "promptFeedback" in reply:
        ratings = list_at(object_at(reply, "promptFeedback"), "safetyRatings")
        found += findings(ratings, v1.FILTER_SUBJECT_PROMPT)
    if "safetyRatings" in candidate:
        ratings = list_at(candidate, "safetyRatings")
        found += findings(ratings, v1.FILTER_SUBJECT_ANSWER)
    return found


def searches(candidate: Json) -> int:
    """How many searches the vendor ran for an answer."""
    return len(list_at(object_at(candidate, "groundingMetadata"), "webSearchQueries"))


def decode_embed(body: bytes, into: v1.EmbedResponse) -> None:
    """As Codec.decode_embed asks; the vendor does not name the model in these replies."""
    reply = read_document(body)
    if "error" in reply:
        raise reported_error(reply)
    vectors: list[Json]
    if "predictions" in reply:
        vectors = _predicted(reply, into.usage)
    else:
        vectors = list_at(reply, "embeddings")
        if not vectors and "embedding" in reply:
            vectors = [reply["embedding"]]
        read_usage(reply, into.usage)
    if not vectors:
        raise senseless("has no embeddings")
    for item in vectors:
        values = list_at(as_object(item, "embeddings"), "values")
        try:
            into.embeddings.add().values.extend(values)
        except TypeError:
            raise senseless("has embeddings that are not numbers") from None


def _predicted(reply: Json, usage: v1.Usage) -> list[Json]:
    """The embeddings of Vertex AI's predict, each of which counts its own tokens."""
    found = []
    for item in list_at(reply, "predictions"):
        embedding = object_at(as_object(item, "predictions"), "embeddings")
        statistics = object_at(embedding, "statistics")
        count = statistics.get("token_count")
        if count is not None:
            # Its numbers are doubles, and may be written so.
            whole = int(count) if isinstance(count, float) and count.is_integer() else count
            usage.input_tokens += count_at({"token_count": whole}, "token_count")
            usage.source = v1.USAGE_SOURCE_PROVIDER
        found.append(embedding)
    return found


def decode_count(body: bytes) -> int:
    """As TokenCountCodec.decode_token_count asks."""
    reply = read_document(body)
    if "error" in reply:
        raise reported_error(reply)
    if "totalTokens" not in reply:
        raise senseless("has no count of tokens")
    return count_at(reply, "totalTokens")


def first_candidate(reply: Json) -> Json | None:
    """The candidate in a reply, None when it holds none yet.

    Raises UpstreamError for an error in the candidate's stead, and CONTENT_FILTER for a
    prompt that was blocked.
    """
    if "error" in reply:
        raise reported_error(reply)
    candidates = list_at(reply, "candidates")
    if candidates:
        return as_object(candidates[0], "candidates[0]")
    feedback = object_at(reply, "promptFeedback")
    blocked = feedback.get("blockReason")
    if blocked is not None:
        detail = text_at(feedback, "blockReasonMessage")
        raise UpstreamError(
            v1.ERROR_REASON_CONTENT_FILTER,
            shorten(f"the provider blocked the prompt: {blocked}" + (detail and f": {detail}")),
            http_status=200,
        )
    return None


def finish_word(candidate: Json) -> str:
    """The vendor's own word for the end, empty before it."""
    value = candidate.get("finishReason")
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise senseless("has a finishReason that is no word")
    word = str(value)
    return "" if word in _NOT_FINISHED else word


def finish_reason(word: str, *, calls: bool) -> v1.FinishReason.ValueType:
    """What the word means in an answer that holds calls, or none."""
    if not word:
        return v1.FINISH_REASON_UNSPECIFIED
    reason = _FINISH.get(word, v1.FINISH_REASON_OTHER)
    return v1.FINISH_REASON_TOOL_CALLS if reason == v1.FINISH_REASON_STOP and calls else reason


def read_usage(reply: Json, into: v1.Usage) -> None:
    """Replaces the counts by those in the reply, if it has any.

    The vendor counts the results of its own tools apart from the prompt, and thoughts apart
    from the candidates; totalTokenCount is the sum of the four. Cached tokens are part of the
    prompt. A report without the prompt's count is kept but is not the provider's full
    report: its source stays unspecified.
    """
    raw = reply.get("usageMetadata")
    if raw is None:
        return
    counts = as_object(raw, "usageMetadata")
    if not _has_counts(counts):
        return
    thoughts = count_at(counts, "thoughtsTokenCount")
    into.input_tokens = count_at(counts, "promptTokenCount") + count_at(
        counts, "toolUsePromptTokenCount"
    )
    into.output_tokens = count_at(counts, "candidatesTokenCount") + thoughts
    into.reasoning_tokens = thoughts
    into.cached_input_tokens = count_at(counts, "cachedContentTokenCount")
    into.input_audio_tokens = _of_kind(counts, "promptTokensDetails", _AUDIO) + _of_kind(
        counts, "toolUsePromptTokensDetails", _AUDIO
    )
    into.output_audio_tokens = _of_kind(counts, "candidatesTokensDetails", _AUDIO)
    into.cached_input_audio_tokens = _of_kind(counts, "cacheTokensDetails", _AUDIO)
    into.input_image_tokens = _of_kind(counts, "promptTokensDetails", _IMAGE)
    into.output_image_tokens = _of_kind(counts, "candidatesTokensDetails", _IMAGE)
    into.source = (
        v1.USAGE_SOURCE_PROVIDER if "promptTokenCount" in counts else v1.USAGE_SOURCE_UNSPECIFIED
    )


def _has_counts(counts: Json) -> bool:
    # Vertex AI's earlier events name only the kind of traffic.
    return "promptTokenCount" in counts or "candidatesTokenCount" in counts


def _of_kind(counts: Json, key: str, kind: tuple[str, int]) -> int:
    total = 0
    for item in list_at(counts, key):
        detail = as_object(item, key)
        if detail.get("modality") in kind:
            total += count_at(detail, "tokenCount")
    return total
