"""Prices as straight lines, so that many candidates are compared cheaply."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from trunkline_server.routing.draws import Case
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.snapshot import Deployment

# A request of unknown size is compared as one of an ordinary mix.
_ORDINARY = (1_000, 250)

# Tokens: so many that rounding to nanos does not matter.
_MANY = 10**9


class Line(NamedTuple):
    """What a request costs between two price tiers, in nanos: exact to about one nano.

    `slack` is by how much `per_input`, which comes from rounded amounts, may be too steep.
    """

    fixed: float
    per_input: float
    per_output: float
    slack: float


_UNPRICED = Line(inf, 0.0, 0.0, 0.0)


class Tariffs:
    """The prices of some deployments at one time, by price tier."""

    __slots__ = ("_bands", "_lines", "_prices", "at", "starts")

    def __init__(self, members: Iterable[Deployment], at: float) -> None:
        self.at = at
        self._prices = [row.price for row in members]
        # Where some price changes with the size of the input.
        self.starts = sorted(
            {
                tier.above
                for price in {id(price): price for price in self._prices}.values()
                if price is not None
                for version in price.versions
                for tier in version.tiers
            }
        )
        self._bands: dict[int, list[Line]] = {}
        self._lines: dict[int, dict[int, Line]] = {}  # By band and the price's identity.

    def band(self, inputs: int) -> int:
        """Which stretch between tiers an input falls in."""
        return bisect_left(self.starts, inputs) if self.starts else 0

    def line(self, price: Price, band: int) -> Line:
        """A price in one stretch."""
        low = self.starts[band - 1] + 1 if band else 0
        high = self.starts[band] if band < len(self.starts) else low + _MANY
        at_low = price.estimate(low, 0, self.at)
        per_output = (price.estimate(low, _MANY, self.at) - at_low) / _MANY
        width = high - low
        per_input = (price.estimate(high, 0, self.at) - at_low) / width if width else 0.0
        return Line(at_low - per_input * low, per_input, per_output, 1.0 / width if width else 0.0)

    def costs(self, places: Sequence[int], inputs: int, outputs: int) -> list[float]:
        """What the deployments at some places would charge, in nanos; infinite: unpriced.

        The places ascend when they are those of all.
        """
        band = self.band(inputs)
        lines = self._bands.get(band) or self._draw(band)
        if len(places) < len(lines):
            lines = [lines[place] for place in places]
        return _costs(lines, inputs, outputs)

    def costs_of(self, members: Iterable[Deployment], inputs: int, outputs: int) -> list[float]:
        """The same for some of the deployments themselves, in any order."""
        band = self.band(inputs)
        if band not in self._bands:
            self._draw(band)
        lines = self._lines[band]
        return _costs([lines[id(row.price)] for row in members], inputs, outputs)

    def _draw(self, band: int) -> list[Line]:
        drawn = self._lines[band] = {
            key: _UNPRICED if price is None else self.line(price, band)
            for key, price in {id(price): price for price in self._prices}.items()
        }
        lines = self._bands[band] = [drawn[id(price)] for price in self._prices]
        return lines


def _costs(lines: Iterable[Line], inputs: int, outputs: int) -> list[float]:
    read, written = float(inputs), float(outputs)
    return [
        fixed + per_input * read + per_output * written for fixed, per_input, per_output, _ in lines
    ]


def sizes(case: Case) -> tuple[int, int]:
    """Input and output tokens to estimate with."""
    query = case.query
    if query.input_tokens or query.output_tokens:
        return query.input_tokens, query.output_tokens
    return _ORDINARY
