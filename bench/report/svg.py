"""Line plots as SVG, with logarithmic axes where a figure spans decades."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 40, 50
# Colours that the colour-blind can tell apart (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True, slots=True)
class Plot:
    """Some lines over one x. `name` is the file's."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = True


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Where a value stands, in pixels."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the axis."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        else:
            step = _step(self.high - self.low)
            marks = [step * count for count in range(math.ceil(self.high / step) + 1)]
        return [mark for mark in marks if self.low <= mark <= self.high]


def _step(span: float) -> float:
    """A round distance that divides the span into about five."""
    rough = max(span, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)


def draw(plot: Plot) -> str:
    """The SVG. A plot without a point is an empty frame."""
    points = [point for line in plot.lines.values() for point in line]
    x_axis = _axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, plot.log_x)
    y_axis = _axis([y for _, y in points], _HEIGHT - _BOTTOM, _TOP, plot.log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(plot.title)}</text>',
        *_grid(x_axis, y_axis),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 12}" '
        f'text-anchor="middle">{escape(plot.x_label)}</text>',
        f'<text transform="translate(16 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(plot.y_label)}</text>',
    ]
    for index, (name, line) in enumerate(plot.lines.items()):
        parts += _line(index, name, line, x_axis, y_axis)
    return "\n".join([*parts, "</svg>", ""])


def _axis(values: Sequence[float], start: float, end: float, logarithmic: bool) -> _Axis:
    if logarithmic:
        positive = [value for value in values if value > 0] or [1.0]
        return _Axis(min(positive) / 1.2, max(positive) * 1.2, start, end, True)
    return _Axis(0.0, max(values, default=1.0) * 1.05 or 1.0, start, end, False)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    parts = []
    for tick in x_axis.ticks():
        at = x_axis.place(tick)
        parts.append(
            f'<path d="M{at:.1f} {y_axis.end} V{y_axis.start}" stroke="#ddd"/>'
            f'<text x="{at:.1f}" y="{y_axis.start + 18}" text-anchor="middle">{tick:,g}</text>'
        )
    for tick in y_axis.ticks():
        at = y_axis.place(tick)
        parts.append(
            f'<path d="M{x_axis.start} {at:.1f} H{x_axis.end}" stroke="#ddd"/>'
            f'<text x="{x_axis.start - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:,g}</text>'
        )
    return parts


def _line(
    index: int, name: str, line: Sequence[tuple[float, float]], x_axis: _Axis, y_axis: _Axis
) -> list[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in line]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    legend = _TOP + 18 * index
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places),
        f'<rect x="{x_axis.end + 12}" y="{legend}" width="12" height="3" fill="{colour}"/>',
        f'<text x="{x_axis.end + 30}" y="{legend + 6}">{escape(name)}</text>',
    ]
