"""Medians with their spread, and ratios of measurements that were taken in turn."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Some measurements of one thing, one for each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that is reported."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """The least of all rounds."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The most of all rounds."""
        return max(self.samples)

    def show(self, digits: int = 0) -> str:
        """Median and range, such as `120 (115-131)`."""
        if len(self.samples) == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"

    def as_json(self) -> dict[str, object]:
        """Everything, for the JSON report."""
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "samples": list(self.samples),
        }


def figure(samples: Sequence[float]) -> Figure:
    """A Figure of at least one sample."""
    if not samples:
        raise ValueError("a figure needs a sample")
    return Figure(tuple(samples))


def ratio(figure: Figure, base: Figure) -> Figure:
    """The ratio round by round: what else the machine did in a round falls on both."""
    return Figure(tuple(a / b for a, b in zip(figure.samples, base.samples, strict=True)))
