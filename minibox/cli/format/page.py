"""The steps of a start as an HTML page: foldable, readable without a script, for screens and for paper."""

from __future__ import annotations

from html import escape
from typing import Any

from minibox.base.lines import lines_of
from minibox.cli.format.plan import describe, legible, unsaid
from minibox.cli.format.svg import DARK, LIGHT
from minibox.cli.format.table import printable

ACTORS = {
    "parent": "minibox itself, outside the container",
    "init": "the container's first process, which becomes the command",
    "mounter": "a helper that may mount what the container may not",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:PAGE;color:INK}
code,pre{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:.9em}
details{border:1px solid EDGE;border-radius:6px;margin:.3rem 0;background:CARD}
summary{cursor:pointer;padding:.35rem .7rem}
details>div{padding:0 .7rem .6rem 2.6rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0;border-left:3px solid MARK;padding-left:.6rem}
.faint{color:FAINT}.bad{color:BAD}h2{margin-top:2rem}p{margin:.3rem 0}a{color:MARK}
"""
PRINT = "@media print{h2{break-after:avoid}body{font-size:11px;margin:0;max-width:none}details>div{display:block!important}details{break-inside:avoid}details::details-content{content-visibility:visible;height:auto}}"


def page(rows: list[dict[str, Any]], title: str) -> str:
    """Return a whole HTML document for the rows of `plan.explain.rows` or `trace_rows`."""
    style = _style(LIGHT) + "@media screen and (prefers-color-scheme:dark){" + _style(DARK) + "}" + PRINT
    actors = list(dict.fromkeys(row["actor"] for row in rows))
    told = "".join(f"<li><b>{escape(each)}</b>: {escape(ACTORS.get(each, each))}</li>" for each in actors)
    body = [
        f"<h1>{_safe(title)}</h1>",
        f"<p>{len(rows)} steps, done by {len(actors)} processes in this order. Open a step to see why it is there.</p>",
        f"<ul>{told}</ul>",
    ]
    actor = None
    for row in rows:
        if row["actor"] != actor:
            actor = row["actor"]
            body.append(f"<h2>{escape(actor)}</h2>")
        body.append(_step(row))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_safe(title)}</title>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{style}</style></head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _step(row: dict[str, Any]) -> str:
    time = "" if row.get("microseconds") is None else f" {row['microseconds']:.0f} µs"
    failed = f' <b class="bad">failed: {_safe(str(row["error"]))}</b>' if row.get("error") else ""
    manual = f' <span class="faint">{_manual(row["manual"])}{time}</span>'
    lines = [f"<p><b>Why:</b> {_safe(row['why'])}</p>"] if row["why"] else []
    said = f"{row['operation']}: {describe(unsaid(row))}".rstrip(": ")
    lines.append(f'<p class="faint"><code>{_safe(said)}</code></p>')
    if row.get("shell"):
        lines.append(f"<pre>{escape(chr(10).join(printable(line) for line in lines_of(row['shell'])))}</pre>")
    summary = f"<summary>{row['index']} <b>{_safe(row['does'])}</b>{manual}{failed}</summary>"
    return (
        f'<details id="step-{row["index"]}"{" open" if failed else ""}>{summary}<div>{"".join(lines)}</div></details>'
    )


def _manual(name: str) -> str:
    """Return a reference to a manual page, as a link to its page of man7.org."""
    word, _, section = name.partition("(")
    section = section.rstrip(")")
    if not section.isdigit() or not word.replace("_", "").replace("-", "").isalnum():
        return escape(name)
    return f'<a href="https://man7.org/linux/man-pages/man{section}/{word}.{section}.html">{escape(name)}</a>'


def _style(colours: dict[str, str]) -> str:
    style = STYLE
    for name, colour in colours.items():
        style = style.replace(name.upper(), colour)
    return style


def _safe(text: str) -> str:
    return escape(legible(text))
