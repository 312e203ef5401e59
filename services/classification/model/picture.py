"""A small picture for a report: points of the unit square, as SVG, which needs no library and shows every change."""

from collections.abc import Sequence
from typing import Final

SIDE: Final = 300
MARGIN: Final = 40


def curve(points: Sequence[tuple[float, float]], title: str, across: str, up: str) -> str:
    """Draw points, joined in their order, beside the diagonal."""
    near, far = MARGIN, MARGIN + SIDE
    placed = [(near + x * SIDE, far - y * SIDE) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed)
    size = SIDE + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/><text x="{near}" y="24" font-size="13">{title}</text>'
        f'<rect x="{near}" y="{near}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
        f'<line x1="{near}" y1="{far}" x2="{far}" y2="{near}" stroke="#ccc"/>'
        f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/><g fill="#1f6feb">{dots}</g>'
        f'<text x="{near}" y="{far + 14}">0</text><text x="{far - 8}" y="{far + 14}">1</text>'
        f'<text x="{near + 100}" y="{far + 28}">{across}</text>'
        f'<text x="20" y="{far - 100}" transform="rotate(-90 20 {far - 100})">{up}</text></svg>\n'
    )
