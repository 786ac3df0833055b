"""What a case of the Python API runs, with the interpreter of the checkout that is recorded: its argument is the case as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import minibox

warnings.simplefilter("error")


def main() -> None:
    case = json.loads(sys.argv[1])
    keywords = {name: _typed(name, value) for name, value in case["keywords"].items()}
    try:
        done = getattr(sys.modules[__name__], f"do_{case['kind'].lower()}")(case["command"], keywords)
    except Exception as error:
        hint = getattr(error, "hint", None)
        done = {
            "raised": type(error).__name__,
            "text": str(error),
            "hint": hint,
            "bases": [each.__name__ for each in type(error).__mro__],
        }
    print(json.dumps(done, sort_keys=True, default=repr))


def do_run(command: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    return _completed(minibox.run("base", command, capture_output=True, text=True, input="a line\n", **keywords))


def do_sandbox(command: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    with minibox.Sandbox("base", **keywords) as box:
        box.write_file("/tmp/note", b"written")
        done = _completed(box.run(command, capture_output=True, text=True, env={"B": "2"}, user="1:2", cwd="/tmp"))
        return {**done, "note": box.read_file("/tmp/note").decode(), "diff": sorted(box.diff())}


def do_popen(command: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    with minibox.Sandbox("base", **keywords) as box, box.popen(command, stdout=minibox.PIPE, text=True) as process:
        out, _ = process.communicate()
        return {"returncode": process.returncode, "stdout": out}


def _completed(done: Any) -> dict[str, Any]:
    verdict = done.verdict
    return {
        "args": done.args,
        "returncode": done.returncode,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "verdict": str(verdict),
        "fields": sorted(name for name in dir(done) if not name.startswith("_")),
    }


def _typed(name: str, value: Any) -> Any:
    """JSON has no tuples, and no numbers for keys."""
    if name == "mounts" and isinstance(value, list):
        return [tuple(each) if isinstance(each, list) else each for each in value]
    if name == "ulimits":
        return {key: tuple(each) if isinstance(each, list) else each for key, each in value.items()}
    return value


if __name__ == "__main__":
    main()
