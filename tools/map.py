"""Write the map of the package into CONTRIBUTING.md: `make map`. A unit test fails where the two differ."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "CONTRIBUTING.md"
BEGIN, END = "<!-- the map: `make map` writes it -->\n", "<!-- the end of the map -->\n"


def package_map() -> str:
    """A list item for each package: the first paragraph of its docstring, and the names of its modules."""
    items = []
    for path in sorted((CHECKOUT / "minibox").rglob("__init__.py"), key=lambda path: path.parent.parts):
        folder = path.parent
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        sentence = " ".join(docstring.partition("\n\n")[0].split()).replace("``", "`")
        modules = " ".join(f"`{each.stem}`" for each in sorted(folder.glob("*.py")) if not each.stem.startswith("_"))
        text = f"- **{folder.relative_to(CHECKOUT)}/**: {sentence}"
        items.append(_filled(text) + (f"\\\n{_filled('  ' + modules)}" if modules else ""))
    return "\n".join(items) + "\n"


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def with_map(page: str) -> str:
    """The page with today's map in place of the one it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{package_map()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
