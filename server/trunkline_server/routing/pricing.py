"""Prices: what a usage costs, in exact integer arithmetic.

Rates are held as integers of a ninth of a yocto-USD (10^-24 USD) per token, so that every price
that a vendor publishes, down to 10^-18 USD per million tokens, is exact, and so is a price per
hour of sound for each millisecond. The exact amounts of a call are summed first and rounded
once, half to even, to nanos (10^-9 USD).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from math import gcd

from trunkline import v1

_FINE_PER_USD = 9 * 10**24
_FINE_PER_NANO = 9 * 10**15
_MILLION = 10**6
_MS_PER_HOUR = 3_600_000
_MAX_NANOS = 2**63 - 1
_SECONDS_PER_DAY = 86_400


# The rates of which a price needs one: the others say only how a part is charged.
SUFFICIENT = (
    *("input", "output", "image", "input_audio_hour", "output_audio_hour"),
    *("input_characters", "search_unit"),
)
# What is not counted in tokens, and how many of it a rate is for.
_UNITS = {
    "input_audio_hour": _MS_PER_HOUR,
    "output_audio_hour": _MS_PER_HOUR,
    "input_characters": _MILLION,
    "search_unit": 1,
    "image": 1,
}


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


# What deployments are compared by that charge no tokens: a request of an ordinary size.
_ORDINARY = {
    "input_audio_hour": 60_000,
    "output_audio_hour": 60_000,
    "input_characters": 1_000,
    "search_unit": 1,
    "image": 1,
}


class _Band:
    """Rates as integers, with every fallback resolved.

    They are held in the coarsest unit that leaves each of them, and a nano, whole: a rate of
    up to three decimals per million tokens is a small number of nanos. `nano` is how many of
    the units make one.
    """

    __slots__ = (
        "audio_in",
        "audio_out",
        "by_unit",
        "cached",
        "cached_audio",
        "has_input",
        "has_output",
        "image_in",
        "image_out",
        "images",
        "inp",
        "most",
        "nano",
        "ordinary",
        "out",
        "per_token",
        "reasoning",
        "request",
        "totals_only",
        "units",
        "worst",
        "write",
        "write_1h",
    )

    def __init__(self, rates: Rates) -> None:
        fine = {
            row.name: _per(getattr(rates, row.name), _UNITS.get(row.name, _MILLION))
            for row in fields(rates)
            if row.name not in {"per_request", "images"}
        }
        images = {name: _exact(rate, _FINE_PER_USD) for name, rate in rates.images}
        request = _exact(rates.per_request, _FINE_PER_USD)
        amounts = [rate or 0 for rate in (*fine.values(), *images.values())]
        unit = gcd(_FINE_PER_NANO, request, *amounts)
        self.nano = _FINE_PER_NANO // unit
        self.request = request // unit
        of = {name: None if rate is None else rate // unit for name, rate in fine.items()}
        self.has_input, self.has_output = of["input"] is not None, of["output"] is not None
        self.inp, self.out = inp, out = of["input"] or 0, of["output"] or 0
        cached, audio = of["cached_input"], of["input_audio"]
        apart = max((rate for rate in (cached, audio) if rate is not None), default=inp)
        self.cached = _or(cached, inp)
        self.audio_in = _or(audio, inp)
        self.cached_audio = _or(of["cached_input_audio"], apart)
        self.write = _or(of["cache_write"], inp)
        self.write_1h = _or(of["cache_write_1h"], self.write)
        self.image_in = _or(of["input_image"], inp)
        self.reasoning = _or(of["reasoning"], out)
        self.audio_out = _or(of["output_audio"], out)
        self.image_out = _or(of["output_image"], out)
        inputs = {self.cached, self.audio_in, self.cached_audio, self.write, self.write_1h}
        inputs.add(self.image_in)
        outputs = {self.reasoning, self.audio_out, self.image_out}
        self.totals_only = inputs == {inp} and outputs == {out}
        self.per_token = max(inp, out) * unit / _FINE_PER_USD
        most_in = _or(of["input"], out)
        self.most = (most_in, max(_or(of["output"], most_in), self.reasoning))
        self.worst = (
            max(most_in, *inputs),
            max(self.most[1], self.audio_out, self.image_out),
        )
        self.units = {name: rate for name in _UNITS if (rate := of[name]) is not None}
        self.images = {name: rate // unit for name, rate in images.items()}
        self.by_unit = bool(self.units or self.images)
        self.ordinary = 0
        if not (self.has_input or self.has_output):
            self.ordinary = sum(
                rate * _ORDINARY[name]
                for name, rate in {
                    "image": max(self.images.values(), default=0),
                    **self.units,
                }.items()
            )

    def input_cost(self, usage: v1.Usage) -> int:
        """Units for all input. Parts that exceed their total are charged as reported."""
        cached_audio = usage.cached_input_audio_tokens
        write_1h = usage.cache_write_1h_tokens
        audio = max(usage.input_audio_tokens - cached_audio, 0)
        cached = max(usage.cached_input_tokens - cached_audio, 0)
        write = max(usage.cache_write_tokens - write_1h, 0)
        rest = usage.input_tokens - audio - cached - cached_audio - write - write_1h
        # Of images some may have come from the cache, and are in that count then.
        image = max(min(usage.input_image_tokens, rest), 0)
        plain = max(rest - image, 0)
        return (
            plain * self.inp
            + image * self.image_in
            + cached * self.cached
            + write * self.write
            + write_1h * self.write_1h
            + audio * self.audio_in
            + cached_audio * self.cached_audio
        )

    def output_cost(self, usage: v1.Usage) -> int:
        """Units for all output, likewise."""
        reasoning = usage.reasoning_tokens
        audio = usage.output_audio_tokens
        rest = usage.output_tokens - reasoning - audio
        image = max(min(usage.output_image_tokens, rest), 0)
        plain = max(rest - image, 0)
        return (
            plain * self.out
            + reasoning * self.reasoning
            + audio * self.audio_out
            + image * self.image_out
        )

    def image_rate(self, variant: str, *, most: bool = False) -> int | None:
        """Units for an image made so; None: unknown. Of several rates that fit it in part, the
        dearest; with `most` any that may fit counts, where quality or size is not known."""
        images, plain = self.images, self.units.get("image")
        if variant in images:
            return images[variant]
        quality, _, size = variant.partition("/")
        known = {quality, size} - {""}
        near = [rate for name, rate in images.items() if name in known]
        if most and len(known) < 2:
            # The vendor chooses the rest.
            near += [
                rate for name, rate in images.items() if not known or known & {*name.split("/")}
            ]
            near += () if plain is None else (plain,)
        return max(near, default=plain)

    def unit_cost(self, usage: v1.Usage, *, most: bool = False) -> tuple[int, int, bool] | None:
        """Units for what is not counted in tokens, of input and of output, and whether any of it
        has a rate; None where the rate of its images is unknown and they are what is charged."""
        units = self.units
        heard, made = units.get("input_audio_hour"), units.get("output_audio_hour")
        spoken, searched = units.get("input_characters"), units.get("search_unit")
        read = write = 0
        charged = False
        for count, rate in (
            (usage.input_audio_ms, heard),
            (usage.input_characters, spoken),
            (usage.search_units, searched),
        ):
            if count and rate is not None:
                read += count * rate
                charged = True
        if usage.output_audio_ms and made is not None:
            write += usage.output_audio_ms * made
            charged = True
        if usage.output_images and (self.images or "image" in units):
            rate = self.image_rate(usage.image_variant, most=most)
            if rate is None:
                return None
            write += usage.output_images * rate
            charged = True
        return read, write, charged


class _Schedule:
    """A version's bands: `bands[i]` holds for input above `starts[i - 1]` tokens."""

    __slots__ = ("bands", "base", "starts", "version")

    def __init__(self, version: Version) -> None:
        tiers = sorted(version.tiers, key=lambda tier: tier.above)
        self.version = version
        self.base = _Band(version.rates)
        self.bands = (self.base, *(_Band(tier.rates) for tier in tiers))
        self.starts = tuple(tier.above for tier in tiers)

    def band(self, input_tokens: int) -> _Band:
        return self.bands[bisect_left(self.starts, input_tokens)] if self.starts else self.base


class Price:
    """The price of one model at one provider: every version, tier and kind of token.

    Immutable. The last version in order that holds at the time counts; if none holds, the
    first does. Raises ValueError without versions and for rates finer than 10^-18 USD per
    million tokens.
    """

    __slots__ = ("_always", "_hash", "_latest_first", "_only", "versions")

    def __init__(self, versions: Sequence[Version]) -> None:
        if not versions:
            raise ValueError("a price needs at least one version")
        self.versions = tuple(versions)
        schedules = [_Schedule(version) for version in versions]
        self._latest_first = tuple(reversed(schedules))
        self._only = schedules[0] if len(schedules) == 1 else None
        # The one band of a price that depends on neither time nor size.
        self._always = self._only.base if self._only and not self._only.starts else None
        self._hash = hash(self.versions)

    @classmethod
    def flat(cls, rates: Rates) -> "Price":
        """A price that never changes."""
        return cls([Version(rates)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Price) and self.versions == other.versions

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Price({list(self.versions)!r})"

    def _at(self, at: float) -> _Schedule:
        if self._only is not None:
            return self._only
        for schedule in self._latest_first:
            if schedule.version.active(at):
                return schedule
        return self._latest_first[-1]

    def cost(self, usage: v1.Usage, at: float) -> v1.Cost:
        """What a usage cost at a time in Unix seconds.

        Input, output and total are each rounded once from their exact amounts, so the total
        may differ by one nano from the sum of the rounded input, output and request charge.
        The answer is `unpriced` when tokens were used that have no rate (output of a model
        priced for input only), when nothing that was used has one, or when the amount is beyond
        the contract's range. Searches without a rate leave the amounts of the rest.
        """
        input_tokens = usage.input_tokens
        output_tokens = usage.output_tokens
        band = self._always or self._at(at).band(input_tokens)
        if (
            usage.search_units
            or usage.output_images
            or usage.input_audio_ms
            or usage.output_audio_ms
            or usage.input_characters
        ):
            return _cost_with_units(band, usage)
        if (input_tokens and not band.has_input) or (output_tokens and not band.has_output):
            return v1.Cost(unpriced=True)
        if band.totals_only:
            exact_input = max(input_tokens, 0) * band.inp
            exact_output = max(output_tokens, 0) * band.out
        else:
            exact_input = band.input_cost(usage)
            exact_output = band.output_cost(usage)
        return _cost(band, exact_input, exact_output)

    def most(self, usage: v1.Usage, at: float) -> int:
        """The most that a usage can cost, in nanos of a US dollar, rounded up: where the quality
        or the size of its images is not known yet, the dearest counts."""
        band = self._at(at).band(usage.input_tokens)
        units = band.unit_cost(usage, most=True)
        if units is None:
            return 0
        read, write, _ = units
        exact = read + write + band.input_cost(usage) + band.output_cost(usage) + band.request
        return -(-exact // band.nano)

    def estimate(self, input_tokens: int, output_tokens: int, at: float) -> int:
        """What a request may cost at most, in nanos of a US dollar, rounded up.

        It takes nothing from the vendor's cache and, where reasoning is dearer than other
        output, takes all output for reasoning. Tokens without a rate count at the other
        direction's rate. Where nothing is charged by tokens, it is a request of an ordinary size
        in the units that are charged.
        """
        band = self._always or self._at(at).band(input_tokens)
        inp, out = band.most
        fixed = band.request + band.ordinary
        return -(-(input_tokens * inp + output_tokens * out + fixed) // band.nano)

    def worst(self, input_tokens: int, output_tokens: int, at: float, *, plain: bool) -> int:
        """The most that a request of up to so many tokens can cost, in nanos, rounded up.

        Unlike `estimate` it looks at every tier that fewer tokens may fall into and, unless the
        request is `plain`, takes all input for what is dearest: cache writes or sound.
        """
        schedule = self._only or self._at(at)
        count = bisect_left(schedule.starts, input_tokens) + 1
        worst = 0
        for band in schedule.bands[:count]:
            inp, out = band.most if plain else band.worst
            exact = input_tokens * inp + output_tokens * out + band.request
            worst = max(worst, -(-exact // band.nano))
        return worst

    def estimate_parts(
        self, input_tokens: int, output_tokens: int, at: float
    ) -> tuple[int, int, int]:
        """`estimate` parted into input and output, each rounded up, and the total itself.

        A charge per request is in the total alone.
        """
        band = self._always or self._at(at).band(input_tokens)
        inp, out = band.most
        request, nano = band.request, band.nano
        exact = input_tokens * inp + request
        without_output = -(-exact // nano)
        total = -(-(exact + output_tokens * out) // nano)
        return without_output + (-request // nano), total - without_output, total

    def base_cost(self, usage: v1.Usage, at: float) -> v1.Cost:
        """As `cost`, at the rates of the smallest prompts whatever the usage's size."""
        band = self._at(at).base
        if band.by_unit or not (usage.input_tokens or usage.output_tokens):
            return _cost_with_units(band, usage) if usage.ByteSize() else _cost(band, 0, 0)
        if (usage.input_tokens and not band.has_input) or (
            usage.output_tokens and not band.has_output
        ):
            return v1.Cost(unpriced=True)
        return _cost(band, band.input_cost(usage), band.output_cost(usage))

    def dearest_image(self, at: float) -> int:
        """What one image costs at most, in nanos of a US dollar, rounded up; 0: it is not charged
        for as such."""
        band = self._at(at).base
        rate = band.image_rate("", most=True)
        return 0 if rate is None else -(-rate // band.nano)

    def charges_tokens(self, at: float) -> bool:
        """Whether tokens have a rate at all."""
        base = self._at(at).base
        return base.has_input or base.has_output

    def per_token(self, at: float) -> float:
        """The dearer of the base rates of input and output, in USD per token."""
        return self._at(at).base.per_token

    def rates(self, at: float) -> Rates:
        """The base rates at a time."""
        return self._at(at).version.rates

    def tiers(self, at: float) -> tuple[Tier, ...]:
        """What is charged at a time for longer prompts."""
        return self._at(at).version.tiers


def _cost(band: _Band, exact_input: int, exact_output: int) -> v1.Cost:
    nano = band.nano
    total = _rounded(exact_input + exact_output + band.request, nano)
    if total > _MAX_NANOS:
        return v1.Cost(unpriced=True)
    return v1.Cost(
        input=_rounded(exact_input, nano), output=_rounded(exact_output, nano), total=total
    )


def _cost_with_units(band: _Band, usage: v1.Usage) -> v1.Cost:
    """What a usage cost that tokens alone do not tell, or a price does not charge by them."""
    units = band.unit_cost(usage)
    if units is None:
        return v1.Cost(unpriced=True)
    exact_input, exact_output, charged = units
    inputs, outputs = usage.input_tokens, usage.output_tokens
    lacks = (inputs and not band.has_input) or (outputs and not band.has_output)
    if not charged and (lacks or not (inputs or outputs)):
        return v1.Cost(unpriced=True)
    if band.has_input:
        exact_input += band.input_cost(usage)
    if band.has_output:
        exact_output += band.output_cost(usage)
    cost = _cost(band, exact_input, exact_output)
    if usage.search_units and "search_unit" not in band.units:
        cost.unpriced = True
    return cost


def cost_of(price: Price | None, usage: v1.Usage, at: float) -> v1.Cost:
    """What a usage cost: marked unpriced without a price, estimated for estimated counts.

    A usage that counts nothing and comes from nobody is that of a call which never reached a
    vendor, or asked it for nothing that is charged; it costs nothing, with or without a price.
    """
    source = usage.source
    if source == v1.USAGE_SOURCE_UNSPECIFIED and not (usage.input_tokens or usage.output_tokens):
        return v1.Cost()
    cost = v1.Cost(unpriced=True) if price is None else price.cost(usage, at)
    if source == v1.USAGE_SOURCE_ESTIMATE:
        cost.estimated = True
    return cost


def _or(rate: int | None, fallback: int) -> int:
    return fallback if rate is None else rate


def _per(rate: Decimal | None, count: int) -> int | None:
    return None if rate is None else _exact(rate, _FINE_PER_USD // count)


def _exact(value: Decimal, units: int) -> int:
    numerator, denominator = value.as_integer_ratio()
    amount, rest = divmod(numerator * units, denominator)
    if rest:
        raise ValueError(f"{value} is finer than prices are held")
    return amount


def _rounded(amount: int, unit: int) -> int:
    """How many units an amount is, half to even."""
    units, rest = divmod(amount, unit)
    if 2 * rest > unit or (2 * rest == unit and units & 1):
        return units + 1
    return units
