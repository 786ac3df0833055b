"""`minibox map` as a picture: a card for the host, one for each container, and a line for each pair of links."""

from __future__ import annotations

from typing import Any

from minibox.cli.format import map as words
from minibox.cli.format import svg

MARGIN, GAP, PAD = 20, 70, 12
LANE_PX = 5  # between lines above the cards
COLUMN_PX = 2400  # a column of containers is at most about this high
COLUMNS = 64  # characters in a card
WIDTH = COLUMNS * svg.CHARACTER_PX + 2 * PAD

#: A row of a card: indentation, text, colour, and the name of the link that it shows.
Row = tuple[int, str, str, str]


def picture(document: dict[str, Any]) -> str:
    """Return the map as an SVG document."""
    host, containers = document["Host"], document["Containers"]
    names = ["host", *(each["Name"] for each in containers)]
    titles = [f"host {host['Name']}, Linux {host['Kernel']}", *map(words.title, containers)]
    cards = [_host_rows(host), *map(_rows, containers)]
    corners = _corners([_height(rows) for rows in cards])
    pairs = [
        (link["Peer"], f"{each['Name']} {link['Name']}")
        for each in containers
        for link in each["Links"]
        if link["Peer"]
    ]
    top = MARGIN + LANE_PX * len(pairs) if corners[-1][0] > MARGIN + WIDTH + GAP else MARGIN
    parts: list[str] = []
    places: dict[str, tuple[float, float]] = {}
    for name, title, rows, (x, y) in zip(names, titles, cards, corners):
        parts += _card(x, top + y, title, rows, _height(rows), places, name)
    lines = [
        _line(*places[start], *places[end], number)
        for number, (start, end) in enumerate(pairs)
        if start in places and end in places
    ]
    bottom = max(top + y + _height(rows) + MARGIN for rows, (_, y) in zip(cards, corners))
    return svg.picture(corners[-1][0] + WIDTH + MARGIN, bottom, f"containers on {host['Name']}", [*lines, *parts])


def _corners(heights: list[float]) -> list[tuple[float, float]]:
    """Return where each card lies: the host's has the first column for itself."""
    found: list[tuple[float, float]] = []
    x, y = float(MARGIN), 0.0
    for number, height in enumerate(heights):
        if number == 1 or (number and y + height > COLUMN_PX):
            x, y = x + WIDTH + GAP, 0.0
        found.append((x, y))
        y += height + MARGIN
    return found


def _line(x1: float, y1: float, x2: float, y2: float, number: int) -> str:
    """Draw a line from one card to another: a curve to the next column; to one further on in a lane above the cards, as behind a
    card it would seem to end there.
    """
    x1 += WIDTH
    if x2 - x1 < GAP + WIDTH:  # of the next column
        return svg.curve(x1, y1, x2, y2)
    aside = LANE_PX * (1 + number % (GAP // LANE_PX - 1))
    return svg.bent(x1, y1, x1 + aside, MARGIN / 2 + LANE_PX * number, x2 - aside, x2, y2)


def _host_rows(host: dict[str, Any]) -> list[Row]:
    rows: list[Row] = [(0, "namespaces", "faint", "")]
    rows += [(1, f"{kind:<7}{inode}", "ink", "") for kind, inode in host["Namespaces"].items()]
    rows.append((0, "links", "faint", ""))
    names = {each["Name"] for each in host["Links"]}
    for each in host["Links"]:
        if each["Master"] not in names:
            rows.append((1, words.link(each), "ink", each["Name"]))
            rows += [
                (2, words.link(port), "mark" if port["Peer"] else "ink", port["Name"])
                for port in host["Links"]
                if port["Master"] == each["Name"]
            ]
    return rows


def _rows(container: dict[str, Any]) -> list[Row]:
    rows: list[Row] = [(0, "namespaces", "faint", "")]
    for kind, inode in container["Namespaces"].items():
        others = container["Shared"].get(kind)
        rows.append((1, f"{kind:<7}{inode} " + (f"shared with {', '.join(others)}" if others else "its own"),
                     "warm" if others else "own", ""))  # fmt: skip
    for name, branches in words.sections(container):
        if name == "namespaces":
            continue
        rows.append((0, name, "faint", ""))
        if name == "network":
            rows += [
                (1, words.link(each), "mark" if each["Peer"] else "ink", each["Name"]) for each in container["Links"]
            ]
            rows += [(1, text, "ink", "") for text, _ in branches[len(container["Links"]) :]]
        else:
            rows += _flat(branches, 1)
    return rows


def _flat(branches: list[words.Branch], depth: int) -> list[Row]:
    return [row for text, below in branches for row in [(depth, text, "ink", ""), *_flat(below, depth + 1)]]


def _height(rows: list[Row]) -> float:
    return (len(rows) + 1) * svg.LINE_PX + sum(5 for depth, *_ in rows if not depth) + 2 * PAD


def _card(
    x: float, y: float, title: str, rows: list[Row], height: float, places: dict[str, tuple[float, float]], name: str
) -> list[str]:
    """Draw a card, and remember where its links are."""
    parts = [svg.card(x, y, WIDTH, height)]
    at = y + PAD + svg.FONT_PX
    parts.append(svg.text(x + PAD, at, _cut(title, COLUMNS), bold=True, hint=title))
    for depth, text, kind, link in rows:
        at += svg.LINE_PX + (0 if depth else 5)
        room = COLUMNS - 2 * depth
        hint = text if len(text) > room else ""
        parts.append(svg.text(x + PAD + 2 * depth * svg.CHARACTER_PX, at, _cut(text, room), kind, hint=hint))
        if link:
            places[f"{name} {link}"] = x, at - 4
    return parts


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
