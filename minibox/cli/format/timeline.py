"""The start of a container as a picture: a lane for each process, and below it each step with its time."""

from __future__ import annotations

from typing import Any

from minibox.cli.format import svg
from minibox.cli.format.plan import legible

MARGIN, WIDTH, NAMES_PX, TIME_PX = 20, 1200, 470, 80
LANE_PX, ROW_PX, BAR_PX, NARROWEST_PX = 34, 16, 10, 1.5
NAMES = int(NAMES_PX / svg.CHARACTER_PX) - 1  # characters
COLOURS = ("mark", "own", "warm")
WAITS = ("wait", "recv_fd", "wait_status", "receive")


def picture(rows: list[dict[str, Any]]) -> str:
    """Return the rows of `plan.explain.trace_rows` as an SVG document."""
    actors = list(dict.fromkeys(row["actor"] for row in rows))
    length = max((row["began_microseconds"] + (row["microseconds"] or 0) for row in rows), default=0) or 1
    scale = (WIDTH - NAMES_PX - 2 * MARGIN - TIME_PX) / length
    left = MARGIN + NAMES_PX
    top = MARGIN + 3 * svg.LINE_PX
    steps = top + len(actors) * LANE_PX + MARGIN
    bottom = steps + len(rows) * ROW_PX
    parts = [svg.text(MARGIN, MARGIN + svg.FONT_PX, f"{len(rows)} steps in {length / 1000:.1f} ms", bold=True)]
    for at in _ticks(length):
        x = left + at * scale
        parts += [svg.line(x, top - 6, x, bottom), svg.text(x + 3, top - 10, f"{at / 1000:g} ms", "faint")]
    for number, actor in enumerate(actors):
        y = top + number * LANE_PX
        parts.append(svg.text(MARGIN, y + svg.FONT_PX + 4, f"{actor}", COLOURS[number % len(COLOURS)], bold=True))
    for number, row in enumerate(rows):
        lane = actors.index(row["actor"])
        kind = "bad" if row["error"] else "faint" if _is_wait(row) else COLOURS[lane % len(COLOURS)]
        x = left + row["began_microseconds"] * scale
        width = max(NARROWEST_PX, (row["microseconds"] or 0) * scale)
        hint = f"{row['index']} {legible(row['does'])}: {_time(row)}. {legible(row['why'])}"
        parts.append(svg.bar(x, top + lane * LANE_PX, width, LANE_PX - 12, kind, hint))
        y = steps + number * ROW_PX
        text = f"{row['index']:>3} {legible(row['does'])}"
        parts.append(
            svg.text(
                MARGIN, y + svg.FONT_PX - 1, text if len(text) <= NAMES else text[: NAMES - 1] + "…", kind, hint=hint
            )
        )
        parts.append(svg.bar(x, y + 2, width, BAR_PX, kind, hint))
        if width > NARROWEST_PX * 8 or row["error"]:
            parts.append(svg.text(x + width + 4, y + svg.FONT_PX - 1, _time(row), "faint"))
    words = "waiting for another process is grey" + ("; a step failed" if any(row["error"] for row in rows) else "")
    parts.append(svg.text(MARGIN, bottom + svg.LINE_PX, words, "faint"))
    return svg.picture(WIDTH, bottom + svg.LINE_PX + MARGIN, "the start of a container", parts)


def _is_wait(row: dict[str, Any]) -> bool:
    return row["operation"] in WAITS


def _time(row: dict[str, Any]) -> str:
    if row["error"]:
        return "failed"
    return "not ended" if row["microseconds"] is None else f"{row['microseconds']:.0f} µs"


def _ticks(length: float) -> list[float]:
    """Return about six round times, in microseconds."""
    step = 1.0
    while length / step > 8:
        step *= 2 if str(step)[0] == "1" else 2.5 if str(step)[0] == "2" else 2
    return [number * step for number in range(int(length / step) + 1)]
