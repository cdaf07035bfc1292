"""Rates as vendors publish them: per million tokens, per unit, by time and by size."""

from dataclasses import dataclass, fields
from decimal import Decimal

_SECONDS_PER_DAY = 86_400

# The rates of which a price needs one: the others say only how a part is charged.
SUFFICIENT = (
    *("input", "output", "image", "input_audio_hour", "output_audio_hour"),
    *("input_characters", "search_unit"),
)


@dataclass(frozen=True, slots=True)
class Rates:
    """What is charged, in USD per million tokens, unless said otherwise.

    None means that the kind is not priced apart. Tokens of such a kind are charged as the
    kind that contains it: one-hour cache writes as cache writes; cache reads, cache writes,
    audio and images as input; reasoning, audio and images as output. Cached audio without a
    rate of its own is charged as cached input or as audio, the dearer of those that are priced
    apart. Input and output themselves have nothing to fall back to: without a rate, their price
    is unknown.

    Then what is charged by other units than tokens. `image` is USD for each image made, and
    `images` what it is for some ways of making them, by "QUALITY/SIZE" or either alone; the
    hours are USD for an hour of sound, `input_characters` USD for a million, `search_unit` and
    `per_request` USD for each. What has such a rate is not charged by tokens that have none, and
    the other way round; only searches are always a charge of their own.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None
    cached_input_audio: Decimal | None = None
    input_image: Decimal | None = None
    output_image: Decimal | None = None
    image: Decimal | None = None
    images: tuple[tuple[str, Decimal], ...] = ()
    input_audio_hour: Decimal | None = None
    output_audio_hour: Decimal | None = None
    input_characters: Decimal | None = None
    search_unit: Decimal | None = None
    per_request: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        if not self.images and all(getattr(self, name) is None for name in SUFFICIENT):
            raise ValueError(
                "a price needs a rate for input or for output, or for what is not counted in tokens"
            )
        values = {row.name: getattr(self, row.name) for row in fields(self)}
        del values["images"]
        values |= {f"images[{name}]": value for name, value in self.images}
        for name, value in values.items():
            if value is not None and not (value.is_finite() and value >= 0):
                raise ValueError(f"{name}: a rate is a number, zero or more, not {value}")


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates for the whole request once its input exceeds `above` tokens."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Version:
    """Rates and the time they hold: from `start` (Unix seconds) on, or daily (UTC).

    `daily` is a pair of seconds after midnight, the end excluded; an end before the start
    means the next day. At most one of `start` and `daily` is set; neither means always.
    Tiers replace the base rates of the whole request, not only of the tokens above the
    threshold: so vendors charge long contexts.
    """

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    start: float | None = None
    daily: tuple[float, float] | None = None

    def active(self, at: float) -> bool:
        """Whether the version holds at a time in Unix seconds."""
        if self.start is not None:
            return at >= self.start
        if self.daily is None:
            return True
        begin, end = self.daily
        now = at % _SECONDS_PER_DAY
        return begin <= now < end if begin <= end else now >= begin or now < end
