"""What calls consume that is not counted in tokens alone: at most, before a vendor is asked, and
for answers whose vendor does not say.

Vendors charge the same work by different units: a spoken text by its characters, by the tokens
that it and the sound come to, or by the minute. So all of them are told, and the price of the
deployment picks those that it has rates for.
"""

from dataclasses import dataclass

from trunkline import v1
from trunkline_server.engine.needs import tokens_in
from trunkline_server.engine.sound import milliseconds
from trunkline_server.routing.pricing import Price

# What vendors that charge tokens count at most for a picture, made or looked at: OpenAI's for one
# of 1024x1536 of high quality, 6,240.
TOKENS_PER_IMAGE = 6_240
# The same vendors count about ten tokens for a second of sound that is heard, and about twenty
# for one that is made.
HEARD_TOKENS_PER_SECOND = 10
SPOKEN_TOKENS_PER_SECOND = 21
# A second of speech has three words or fewer, and these some five tokens.
WORDS_TOKENS_PER_SECOND = 5
# A second of speech has about fifteen characters.
CHARACTERS_PER_SECOND = 15
# Cohere counts one search for a query and up to so many documents.
DOCUMENTS_PER_SEARCH = 100


@dataclass(frozen=True, slots=True)
class Units:
    """The most that a call consumes; `exact` where the counts besides tokens are more than
    guesses."""

    most: v1.Usage
    exact: bool = True

    def consumed(self, price: Price | None, at: float) -> v1.Usage:
        """What a deployment at this price is taken to have consumed by carrying the call out,
        at a time in Unix seconds."""
        usage = v1.Usage()
        if not self.most.ByteSize():
            return usage
        usage.CopyFrom(self.most)
        if price is not None and price.charges_tokens(at):
            usage.source = v1.USAGE_SOURCE_ESTIMATE
            return usage
        # Nothing says that it counts tokens.
        for name in _TOKENS:
            usage.ClearField(name)  # type: ignore[arg-type] # They are names of its fields.
        usage.source = v1.USAGE_SOURCE_COUNTED if self.exact else v1.USAGE_SOURCE_ESTIMATE
        return usage


_TOKENS = tuple(
    field.name for field in v1.Usage.DESCRIPTOR.fields if field.name.endswith("_tokens")
)

NOTHING = Units(v1.Usage())


def image_units(request: v1.GenerateImageRequest) -> Units:
    """Of pictures: as many as were asked for."""
    count = request.count if request.HasField("count") else 1
    seen = len(request.images) * TOKENS_PER_IMAGE
    drawn = count * TOKENS_PER_IMAGE
    return Units(
        v1.Usage(
            input_tokens=tokens_in(len(request.prompt) + len(request.negative_prompt)) + seen,
            input_image_tokens=seen,
            output_tokens=drawn,
            output_image_tokens=drawn,
            output_images=count,
            image_variant=image_variant(request.quality, request.size),
        )
    )


def image_variant(quality: str, size: str) -> str:
    """As Usage.image_variant; what is left to the vendor is empty."""
    words = ["" if word == "auto" else word.lower() for word in (quality, size)]
    return "/".join(words) if any(words) else ""


def recording_units(spec: v1.TranscribeSpec, audio: bytes) -> Units:
    """Of a recording that is written down."""
    length, exact = milliseconds(audio, spec.media_type)
    heard = length * HEARD_TOKENS_PER_SECOND // 1000 + 1
    return Units(
        v1.Usage(
            input_tokens=heard + tokens_in(len(spec.prompt)),
            input_audio_tokens=heard,
            output_tokens=length * WORDS_TOKENS_PER_SECOND // 1000 + 1,
            input_audio_ms=length,
        ),
        exact,
    )


def speech_units(request: v1.SynthesizeRequest) -> Units:
    """Of a text that is spoken."""
    characters = len(request.text)
    speed = request.speed if request.HasField("speed") else 1.0
    length = round(1000 * characters / CHARACTERS_PER_SECOND / speed)
    spoken = length * SPOKEN_TOKENS_PER_SECOND // 1000 + 1
    return Units(
        v1.Usage(
            input_tokens=tokens_in(characters + len(request.instructions)),
            output_tokens=spoken,
            output_audio_tokens=spoken,
            input_characters=characters,
            output_audio_ms=length,
        )
    )


def rerank_units(request: v1.RerankRequest) -> Units:
    """Of documents that are put in order: the query is read beside each."""
    count = len(request.documents)
    size = sum(map(len, request.documents)) + count * len(request.query)
    return Units(
        v1.Usage(
            input_tokens=tokens_in(size),
            search_units=-(-count // DOCUMENTS_PER_SEARCH),
        ),
        exact=False,
    )
