"""Small inline SVG charts. Their CSS classes take the page's colours, in the light and the dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from bilora.records import Interval, Scale

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 26
MAX_POINTS = 400


def interval_bar(low: float | None, mean: float, high: float | None, top: float) -> Markup:
    """Return a chart of a value and its interval on a track from 0 to `top`."""

    def at(value: float) -> float:
        return round(2 + 116 * min(max(value / top, 0.0), 1.0), 2) if top > 0 else 2

    span = Markup("")
    if low is not None and high is not None:
        span = Markup('<rect class="span" x="{}" y="3" width="{}" height="6" rx="3"/>').format(
            at(low), max(1.0, round(at(high) - at(low), 2))
        )
    return Markup(
        '<svg class="bar" viewBox="0 0 120 12" preserveAspectRatio="xMinYMid" aria-hidden="true">'
        '<line class="track" x1="2" y1="6" x2="118" y2="6"/>{}'
        '<circle class="mean" cx="{}" cy="6" r="3"/></svg>'
    ).format(span, at(mean))


def difference_bar(gain: Interval, margin: float, scale: Scale) -> Markup:
    """Return a chart of a difference and its interval around 0; a dashed line marks the allowed loss.

    Args:
        gain: in score units, like `margin`; scores are in [0, 1].
        scale: the display scale of the scores.
    """
    reach = min(1.0, _round_up(max(abs(gain.low), abs(gain.high), margin, 1e-9) * 1.1))

    def at(value: float) -> float:
        return round(150 + 140 * value / reach, 2)

    allowed = Markup("")
    if margin > 0:
        allowed = Markup('<line class="margin" x1="{0}" y1="4" x2="{0}" y2="28"/>').format(at(-margin))
    return Markup(
        '<svg class="difference" viewBox="0 0 300 44" role="img" aria-label="difference {} from {} to {}">'
        '<line class="track" x1="10" y1="16" x2="290" y2="16"/>'
        '<line class="zero" x1="150" y1="4" x2="150" y2="28"/>{}'
        '<rect class="span" x="{}" y="12" width="{}" height="8" rx="4"/>'
        '<circle class="mean" cx="{}" cy="16" r="4.5"/>'
        '<text x="10" y="41">{}</text><text x="150" y="41" class="mid">0</text>'
        '<text x="290" y="41" class="end">+{}</text></svg>'
    ).format(
        scale.difference(gain.mean),
        scale.difference(gain.low),
        scale.difference(gain.high),
        allowed,
        at(gain.low),
        max(1.0, round(at(gain.high) - at(gain.low), 2)),
        at(gain.mean),
        f"-{reach * scale.factor:g}",
        f"{reach * scale.factor:g}",
    )


def line_chart(points: Sequence[Point], *, label: str, dots: bool = False) -> Markup:
    """Return a chart of y over step; for many points it shows the running mean above a faint raw line."""
    points = _downsampled(sorted(point for point in points if all(map(math.isfinite, point))))
    if not points:
        return Markup("")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    y_ticks = _ticks(min(ys), max(ys))
    x_ticks = _ticks(min(xs), max(xs), count=4, inside=True)
    left, right = xs[0], xs[-1] if xs[-1] > xs[0] else xs[0] + 1
    bottom, top = y_ticks[0], y_ticks[-1]

    def to_pixels(point: Point) -> Point:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * (point[0] - left) / (right - left)
        y = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (point[1] - bottom) / (top - bottom)
        return round(x, 1), round(y, 1)

    parts: list[Markup] = []
    for value in y_ticks:
        y = to_pixels((left, value))[1]
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(_LEFT, y, WIDTH - _RIGHT))
        parts.append(
            Markup('<text class="end" x="{}" y="{}">{}</text>').format(_LEFT - 6, round(y + 3.5, 1), f"{value:g}")
        )
    for value in x_ticks:
        x = to_pixels((value, bottom))[0]
        parts.append(Markup('<text class="mid" x="{}" y="{}">{}</text>').format(x, HEIGHT - 8, f"{value:g}"))
    window = len(points) // 12
    if window > 1 and not dots:
        parts.append(_line([to_pixels(point) for point in points], "raw"))
        parts.append(_line([to_pixels(point) for point in _running_mean(points, window)], "line"))
    else:
        parts.append(_line([to_pixels(point) for point in points], "line"))
    if dots or len(points) == 1:
        for x, y in map(to_pixels, points):
            parts.append(Markup('<circle class="dot" cx="{}" cy="{}" r="2.8"/>').format(x, y))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"{label}: from {ys[0]:.4g} to {ys[-1]:.4g}", Markup("").join(parts)
    )


def _line(points: Sequence[Point], css_class: str) -> Markup:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(css_class, path)


def _downsampled(points: Sequence[Point]) -> list[Point]:
    """Average neighbours until at most MAX_POINTS remain, to keep the page small."""
    stride = math.ceil(len(points) / MAX_POINTS)
    if stride <= 1:
        return list(points)
    windows = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(sum(x for x, _ in window) / len(window), sum(y for _, y in window) / len(window)) for window in windows]


def _running_mean(points: Sequence[Point], window: int) -> list[Point]:
    means = []
    for index, (x, _) in enumerate(points):
        neighbours = points[max(0, index - window) : index + window + 1]
        means.append((x, sum(y for _, y in neighbours) / len(neighbours)))
    return means


def _step(span: float, count: int) -> float:
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * (1 - 1e-9))


def _round_up(value: float) -> float:
    """Return the smallest round number at or above `value`."""
    return float(f"{_step(value, 1):.6g}")


def _ticks(low: float, high: float, *, count: int = 4, inside: bool = False) -> list[float]:
    """Return evenly spaced round values that enclose [low, high], or with `inside` are within it."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = (low, low) if inside else (low - pad, high + pad)
        if inside:
            return [low]
    step = _step(high - low, count)
    first = math.ceil(low / step - 1e-9) if inside else math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if inside else math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.6g}") for index in range(first, last + 1)]
