"""Curves over time as SVG, drawn by hand: a report needs nothing but K2. A curve has a gap where nobody looked."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby

WIDTH, HEIGHT = 900, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 40, 40
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7", "#79706e")
INK, GRID = "#333333", "#dddddd"

Curve = Sequence[float | None]


def stacked(title: str, unit: str, step_s: float, curves: Mapping[str, Curve], bound: float | None = None) -> str:
    """Areas on top of each other, the first at the bottom; `bound` is drawn across."""
    count = max(map(len, curves.values()))
    known = [any(index < len(c) and c[index] is not None for c in curves.values()) for index in range(count)]
    below = [0.0] * count
    bands: list[tuple[str, list[float], list[float]]] = []
    for name, curve in curves.items():
        top = [base + (curve[index] or 0.0) for index, base in enumerate(below)]
        bands.append((name, below, top))
        below = top
    highest = max([*below, bound or 0.0])
    x, y, parts = _frame(title, unit, step_s * max(1, count - 1), highest, list(curves))
    for number, (_, lower, upper) in enumerate(bands):
        for run in _runs(known):
            points = [(x(i * step_s), y(upper[i])) for i in run] + [(x(i * step_s), y(lower[i])) for i in reversed(run)]
            parts.append(f'<polygon points="{_points(points)}" fill="{_colour(number)}" fill-opacity="0.85"/>')
    if bound is not None:
        parts.append(_across(y(bound), f"budget {bound:g}"))
    return _whole(parts)


def lines(title: str, unit: str, step_s: float, curves: Mapping[str, Curve], bound: float | None = None) -> str:
    """A line for each curve; `bound` is drawn across."""
    count = max(map(len, curves.values()))
    highest = max([value for curve in curves.values() for value in curve if value is not None] + [bound or 0.0])
    x, y, parts = _frame(title, unit, step_s * max(1, count - 1), highest, list(curves))
    for number, curve in enumerate(curves.values()):
        for run in _runs([value is not None for value in curve]):
            points = [(x(i * step_s), y(curve[i] or 0.0)) for i in run]
            if len(points) == 1:
                points.append((points[0][0] + 1, points[0][1]))
            parts.append(
                f'<polyline points="{_points(points)}" fill="none" stroke="{_colour(number)}" stroke-width="1.5"/>'
            )
    if bound is not None:
        parts.append(_across(y(bound), f"budget {bound:g}"))
    return _whole(parts)


def _runs(known: Sequence[bool]) -> list[list[int]]:
    """The stretches of indices that are known."""
    return [[i for i, _ in run] for there, run in groupby(enumerate(known), key=lambda pair: pair[1]) if there]


def _frame(
    title: str, unit: str, seconds: float, highest: float, names: Sequence[str]
) -> tuple[Callable[[float], float], Callable[[float], float], list[str]]:
    """Axes, grid and legend, with what turns seconds and values into places."""
    tick = nice(highest / 4 or 1.0)
    ceiling = tick * math.ceil((highest or 1.0) / tick)
    span = max(seconds, 1.0)
    hours = span >= 2 * 3600
    scale, word = (3600.0, "h") if hours else (60.0, "min") if span >= 120 else (1.0, "s")
    step = nice(span / scale / 6) * scale

    def x(at: float) -> float:
        return LEFT + at / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / ceiling * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)} ({escape(unit)})</text>']
    for number in range(round(ceiling / tick) + 1):
        value = number * tick
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.10g}</text>')
    for number in range(int(span / step + 1e-9) + 1):
        at = number * step
        parts.append(f'<path d="M{x(at):.1f} {HEIGHT - BOTTOM}v5" stroke="{INK}"/>')
        parts.append(
            f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{at / scale:.10g} {word}</text>'
        )
    for number, name in enumerate(names):
        place = TOP + 8 + (len(names) - 1 - number) * 20  # the uppermost area is named first
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{place}" width="12" height="12" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 32}" y="{place + 10}">{escape(name)}</text>')
    return x, y, parts


def nice(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= value * 0.999999)


def _across(place: float, words: str) -> str:
    return (
        f'<path d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}" stroke="#c00000" stroke-dasharray="6 4"/>'
        f'<text x="{WIDTH - RIGHT - 6}" y="{place - 5:.1f}" text-anchor="end" fill="#c00000">{escape(words)}</text>'
    )


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _whole(parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"
