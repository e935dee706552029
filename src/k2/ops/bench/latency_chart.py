"""A drawing of the latency bench: quantiles over the rate, and what the time is made of. SVG, no library."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

WIDTH, HEIGHT = 980, 460
LEFT, TOP, FLOOR = 56, 56, 400  # of the curves
CURVES_END = 440
BARS, BARS_END = 560, 950
INK, FAINT, GRID = "#1b1f24", "#6b7280", "#e5e7eb"
CURVES = (("p50", "#2563eb"), ("p99", "#ea580c"), ("p99.9", "#9333ea"))
SEGMENTS = (
    ("exchange_to_receive", "exchange → receive", "#94a3b8"),
    ("receive_to_decoded", "receive → decoded", "#60a5fa"),
    ("decoded_to_durable", "decoded → durable", "#f59e0b"),
    ("log_to_loader", "log → loader", "#34d399"),
    ("loader_to_visible", "loader → visible", "#f472b6"),
)


def drawing(report: Mapping[str, Any]) -> str:
    """The report's drawing."""
    series = [one for one in report["results"]["series"] if one["trades"]]
    targets = {one["rate"]: _target(report, one["rate"]) for one in series}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif"'
        f' font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *(_curves(series, targets) if series else []),
        *(_bars(series) if series else []),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _target(report: Mapping[str, Any], rate: int) -> float | None:
    name = f"exchange to silver at {rate:,} trades/s, p99"
    words = next((check["target"] for check in report["checks"] if check["name"] == name), None)
    return float(words.split()[-1]) if words else None


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK, weight: str = "400") -> str:
    look = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: float = 2) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _curves(series: Sequence[Mapping[str, Any]], targets: Mapping[int, float | None]) -> list[str]:
    values = [max(0.01, one["ways"]["exchange_to_visible"].get(name, 0.01)) for one in series for name, _ in CURVES]
    values += [target for target in targets.values() if target]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))

    def x(place: int) -> float:
        return LEFT + 30 + (CURVES_END - LEFT - 50) * (place / (len(series) - 1) if len(series) > 1 else 0.5)

    def y(ms: float) -> float:
        return FLOOR - (FLOOR - TOP) * (log10(max(ms, 10**low)) - low) / max(1, high - low)

    parts = [_text(LEFT - 40, 28, "Exchange → silver, ms, of every trade", weight="600")]
    for power in range(low, high + 1):
        parts += [
            _line([(LEFT, y(10**power)), (CURVES_END, y(10**power))], GRID, 1),
            _text(LEFT - 8, y(10**power) + 4, f"{10**power:g}", "end", FAINT),
        ]
    for place, one in enumerate(series):
        parts.append(_text(x(place), FLOOR + 20, f"{one['rate']:,}", "middle", FAINT))
        if target := targets[one["rate"]]:
            parts.append(_line([(x(place) - 16, y(target)), (x(place) + 16, y(target))], INK, 2.5))
    for name, colour in CURVES:
        points = [(x(place), y(one["ways"]["exchange_to_visible"][name])) for place, one in enumerate(series)]
        parts.append(_line(points, colour))
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in points]
    parts.append(_text((LEFT + CURVES_END) / 2, FLOOR + 40, "trades a second", "middle", FAINT))
    legend = [*((name, colour) for name, colour in CURVES), ("target of p99", INK)]
    for place, (name, colour) in enumerate(legend):
        at = LEFT + 20 + place * 80
        parts += [_line([(at - 14, TOP - 12), (at, TOP - 12)], colour, 2.5), _text(at + 5, TOP - 8, name, colour=FAINT)]
    return parts


def _bars(series: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = [_text(BARS - 60, 28, "Where the slowest hundredth spent its time, mean", weight="600")]
    row = (FLOOR - TOP) / len(series)
    for place, one in enumerate(series):
        total = sum(max(0.0, ms) for ms in one["slowest"].values()) or 1.0
        at, top, height = float(BARS), TOP + place * row + row * 0.15, row * 0.7
        parts.append(_text(BARS - 8, top + height / 2 + 4, f"{one['rate']:,}/s", "end", FAINT))
        for name, _, colour in SEGMENTS:
            ms = max(0.0, one["slowest"][name])
            width = (BARS_END - BARS - 60) * ms / total
            parts.append(
                f'<rect x="{at:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
            )
            if width > 34:
                parts.append(_text(at + width / 2, top + height / 2 + 4, f"{ms:,.1f}", "middle"))
            at += width
        parts.append(_text(at + 6, top + height / 2 + 4, f"{total:,.1f} ms", colour=FAINT))
    for place, (_, label, colour) in enumerate(SEGMENTS):
        x, y = BARS - 60 + place % 3 * 150, FLOOR + 16 + place // 3 * 20
        parts += [
            f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>',
            _text(x + 15, y, label, colour=FAINT),
        ]
    return parts
