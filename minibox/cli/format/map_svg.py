"""`minibox map` as a picture: a card for the host, one for each container, and a line for each pair of links."""

from __future__ import annotations

from typing import Any

from minibox.cli.format import map as words
from minibox.cli.format import svg

MARGIN, GAP, PAD = 20, 70, 12
COLUMN_PX = 2400  # a column of containers is at most about this high
COLUMNS = 64  # characters in a card
WIDTH = COLUMNS * svg.CHARACTER_PX + 2 * PAD

#: A row of a card: indentation, text, colour, and the name of the link that it shows.
Row = tuple[int, str, str, str]


def picture(document: dict[str, Any]) -> str:
    """Return the map as an SVG document."""
    host = document["Host"]
    cards = [(f"host {host['Name']}, Linux {host['Kernel']}", _host_rows(host))]
    cards += [(words.title(each), _rows(each)) for each in document["Containers"]]
    parts: list[str] = []
    places: dict[str, tuple[float, float]] = {}
    heights = [_height(rows) for _, rows in cards]
    names = ["host", *(each["Name"] for each in document["Containers"])]
    x, y, bottom = float(MARGIN), float(MARGIN), 0.0
    for number, ((title, rows), height) in enumerate(zip(cards, heights)):
        if number == 1 or (number and y + height > COLUMN_PX):
            x, y = x + WIDTH + GAP, float(MARGIN)
        parts += _card(x, y, title, rows, height, places, names[number])
        y += height + MARGIN
        bottom = max(bottom, y)
    pairs = [
        (link["Peer"], f"{each['Name']} {link['Name']}") for each in document["Containers"] for link in each["Links"]
    ]
    curves = [
        svg.curve(places[start][0] + WIDTH, places[start][1], places[end][0], places[end][1])
        for start, end in pairs
        if start in places and end in places
    ]
    return svg.picture(x + WIDTH + MARGIN, bottom, f"containers on {host['Name']}", [*curves, *parts])


def _host_rows(host: dict[str, Any]) -> list[Row]:
    rows: list[Row] = [(0, "namespaces", "faint", "")]
    rows += [(1, f"{kind:<7}{inode}", "ink", "") for kind, inode in host["Namespaces"].items()]
    rows.append((0, "links", "faint", ""))
    names = {each["Name"] for each in host["Links"]}
    for each in host["Links"]:
        if each["Master"] not in names:
            rows.append((1, words.link(each), "ink", each["Name"]))
            rows += [
                (2, words.link(port), "mark", port["Name"]) for port in host["Links"] if port["Master"] == each["Name"]
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
