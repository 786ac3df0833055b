"""Record what 300 command lines do, and compare two recordings: `make behaviour`, before and after a change that must not show.

    tests/behaviour/behaviour.py record OLD.json --programs OLD-CHECKOUT/.venv/bin
    tests/behaviour/behaviour.py record NEW.json
    tests/behaviour/behaviour.py compare OLD.json NEW.json

minibox is only touched from outside: by its commands, its state directories and what `import minibox` offers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests import isolation  # noqa: E402
from tests.behaviour import differences  # noqa: E402
from tests.behaviour.cases import all_cases  # noqa: E402
from tests.behaviour.recorder import Recorder  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description="record what minibox does, and compare recordings")
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="run all cases, and write what they did")
    record.add_argument("file", type=Path)
    record.add_argument("--programs", type=Path, default=Path(sys.executable).parent, help="the checkout's .venv/bin")
    record.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    record.add_argument("--only", default="", metavar="TEXT", help="cases whose name begins so")
    record.add_argument("--every", type=int, default=1, metavar="N", help="each Nth of them alone")
    record.add_argument("--part", default="0/1", help=argparse.SUPPRESS)
    compare = commands.add_parser("compare", help="say what differs; status 1 if anything does")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    compare.add_argument(
        "--ignore", action="append", default=[], metavar="KEY", help="leave out what is recorded under this key: why"
    )
    given = parser.parse_args()
    if given.command == "compare":
        return differences.report(json.loads(given.old.read_text()), json.loads(given.new.read_text()), given.ignore)
    if os.geteuid() != 0:
        print("a recording needs root", file=sys.stderr)
        return 1
    return record_all(given) if given.part == "0/1" and given.jobs > 1 else record_part(given)


def record_all(given: argparse.Namespace) -> int:
    """Parts side by side, each by a process in namespaces of its own."""
    with tempfile.TemporaryDirectory(prefix="minibox-behaviour-") as directory:
        files = [Path(directory) / f"{number}.json" for number in range(given.jobs)]
        options = ["--programs", str(given.programs), "--only", given.only, "--every", str(given.every), "--jobs", "1"]
        parts = [
            subprocess.Popen(
                [sys.executable, __file__, "record", str(file), *options, "--part", f"{number}/{given.jobs}"]
            )
            for number, file in enumerate(files)
        ]
        statuses = [part.wait() for part in parts]
        if any(statuses):
            return 1
        found: dict[str, Any] = {}
        for file in files:
            found |= json.loads(file.read_text())
    write(given.file, found)
    return 0


def record_part(given: argparse.Namespace) -> int:
    number, count = map(int, given.part.split("/"))
    mine = [case for case in all_cases() if case["name"].startswith(given.only)][:: given.every][number::count]
    directory = Path(tempfile.mkdtemp(prefix="minibox-behaviour-"))
    directory.chmod(0o755)
    isolation.enter(directory)
    recorder = Recorder(given.programs.absolute(), directory / "work")
    try:
        recorder.start_boxes()
        found = {case["name"]: recorder.record(case) for case in mine}
    finally:
        recorder.close()
        shutil.rmtree(directory, ignore_errors=True)
    write(given.file, found)
    return 0


def write(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(dict(sorted(found.items())), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
