"""Rates as integers, by which amounts are exact.

Rates are held as integers of a ninth of a yocto-USD (10^-24 USD) per token, so that every price
that a vendor publishes, down to 10^-18 USD per million tokens, is exact, and so is a price per
hour of sound for each millisecond.
"""

from dataclasses import fields
from decimal import Decimal
from math import gcd

from trunkline import v1
from trunkline_server.routing.rates import Rates

_FINE_PER_USD = 9 * 10**24
_FINE_PER_NANO = 9 * 10**15
_MILLION = 10**6
_MS_PER_HOUR = 3_600_000

# What is not counted in tokens, and how many of it a rate is for.
_UNITS = {
    "input_audio_hour": _MS_PER_HOUR,
    "output_audio_hour": _MS_PER_HOUR,
    "input_characters": _MILLION,
    "search_unit": 1,
    "image": 1,
}
# What deployments are compared by that charge no tokens: a request of an ordinary size.
_ORDINARY = {
    "input_audio_hour": 60_000,
    "output_audio_hour": 60_000,
    "input_characters": 1_000,
    "search_unit": 1,
    "image": 1,
}


class Band:
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
