"""Prices: what a usage costs, in exact integer arithmetic.

The exact amounts of a call are summed first and rounded once, half to even, to nanos (10^-9 USD);
see bands.py for what they are summed in.
"""

from bisect import bisect_left
from collections.abc import Sequence

from trunkline import v1
from trunkline_server.routing.bands import Band
from trunkline_server.routing.rates import Rates, Tier, Version

_MAX_NANOS = 2**63 - 1


class _Schedule:
    """A version's bands: `bands[i]` holds for input above `starts[i - 1]` tokens."""

    __slots__ = ("bands", "base", "starts", "version")

    def __init__(self, version: Version) -> None:
        tiers = sorted(version.tiers, key=lambda tier: tier.above)
        self.version = version
        self.base = Band(version.rates)
        self.bands = (self.base, *(Band(tier.rates) for tier in tiers))
        self.starts = tuple(tier.above for tier in tiers)

    def band(self, input_tokens: int) -> Band:
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


def _cost(band: Band, exact_input: int, exact_output: int) -> v1.Cost:
    nano = band.nano
    total = _rounded(exact_input + exact_output + band.request, nano)
    if total > _MAX_NANOS:
        return v1.Cost(unpriced=True)
    return v1.Cost(
        input=_rounded(exact_input, nano), output=_rounded(exact_output, nano), total=total
    )


def _cost_with_units(band: Band, usage: v1.Usage) -> v1.Cost:
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


def _rounded(amount: int, unit: int) -> int:
    """How many units an amount is, half to even."""
    units, rest = divmod(amount, unit)
    if 2 * rest > unit or (2 * rest == unit and units & 1):
        return units + 1
    return units
