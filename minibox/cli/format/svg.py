"""Parts of SVG pictures: text, boxes and lines, in colours for light and dark screens and for paper.

A picture has no script and needs no font but a monospaced one. Colours are classes, which a style sheet sets twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

LIGHT = {
    "page": "#ffffff", "card": "#f6f8fa", "edge": "#8c959f", "ink": "#1f2328", "faint": "#59636e", "mark": "#0969da",
    "own": "#1a7f37", "warm": "#9a6700", "bad": "#cf222e",
}  # fmt: skip
DARK = {
    "page": "#0d1117", "card": "#161b22", "edge": "#6e7681", "ink": "#e6edf3", "faint": "#9198a1", "mark": "#58a6ff",
    "own": "#3fb950", "warm": "#d29922", "bad": "#f85149",
}  # fmt: skip
CHARACTER_PX, LINE_PX, FONT_PX = 7.3, 17, 12


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Return a whole SVG document."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img">'
    )
    dark = f"@media screen and (prefers-color-scheme:dark){{{_rules(DARK)}}}"
    style = f"<style>{_rules(LIGHT)}{dark}@media print{{svg{{width:100%;height:auto}}}}</style>"
    page = f'<rect class="page" width="{width:g}" height="{height:g}"/>'
    return "\n".join([head, f"<title>{_safe(title)}</title>", style, page, *parts, "</svg>"]) + "\n"


def _rules(colours: dict[str, str]) -> str:
    # A browser's window may be larger than the picture: all of it has the page's colour.
    page = f"svg{{background:{colours['page']}}}rect.page{{fill:{colours['page']}}}"
    card = f"rect.card{{fill:{colours['card']};stroke:{colours['edge']}}}"
    curves = f"path{{fill:none;stroke-width:1.5;stroke:{colours['mark']}}}"
    lines = f"line{{stroke:{colours['edge']};stroke-width:1;opacity:.4}}"
    texts = f"text{{font:{FONT_PX}px ui-monospace,'DejaVu Sans Mono',monospace;fill:{colours['ink']};white-space:pre}}"
    named = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items() if name not in ("page", "card"))
    return page + card + curves + lines + texts + named + "text.title{font-weight:bold}"


def text(x: float, y: float, words: str, kind: str = "ink", *, bold: bool = False, hint: str = "") -> str:
    """Return a line of text; ``kind`` is its colour."""
    shown = f"<title>{_safe(hint)}</title>" if hint else ""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}{" title" if bold else ""}">{shown}{_safe(words)}</text>'


def card(x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="card" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'


def bar(x: float, y: float, width: float, height: float, kind: str, hint: str) -> str:
    """Return a filled rectangle that tells ``hint`` when pointed at."""
    place = f'x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{height:g}"'
    return f'<rect class="{kind}" {place}><title>{_safe(hint)}</title></rect>'


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def curve(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a curve that leaves to the right and arrives from the left."""
    middle = (x1 + x2) / 2
    return f'<path d="M {x1:g} {y1:g} C {middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"/>'


def bent(x1: float, y1: float, up: float, lane: float, down: float, x2: float, y2: float) -> str:
    """Return a line that goes up at ``up`` to the height ``lane``, and down again at ``down``."""
    return f'<path d="M {x1:g} {y1:g} H {up:g} V {lane:g} H {down:g} V {y2:g} H {x2:g}"/>'


def _safe(words: str) -> str:
    """Return text for XML, which has no control characters."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in words))
