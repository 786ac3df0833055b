"""`make bench` runs through: one round each of few things, in any order of its tables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import report
from tests.conftest import CHECKOUT
from tests.leaks import SLOWNESS
from tests.peers import LONG
from tests.probes import requires

pytestmark = requires(
    "root", "command:cc", "command:crun", "command:runc", "command:podman", "command:skopeo", "command:umoci", "command:docker-registry"
)  # fmt: skip

TABLES = ("starts", "streams", "python", "containers", "growth", "images", "oci", "embedding", "suites", "build")
FEW = {
    "RUNS": 2,
    "CONTAINERS": 2,
    "ENDS": 2,
    "LAYERS": 2,
    "GOES": 1,
    "AT_ONCE": 2,
    "FILES": 10,
    "RESIDENT_MIB": 1,
    "TESTS": 2,
    "FEW_TESTS": 1,
    "WORKERS": 1,
    "LINES": 2,
    "CACHED_FILES": 10,
    "BUILD_FILES": 10,
    "BIG_MIB": 1,
    "CPU_MS": 10,
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A root file system for the table of images, as small as one can be."""
    tree = tmp_path / "tree"
    for name in ("bin", "usr/lib", "usr/share", "tmp"):
        (tree / name).mkdir(parents=True)
    busybox = tree / "bin/busybox"
    busybox.write_bytes(Path("/bin/busybox").read_bytes())
    busybox.chmod(0o755)
    for name in ("sh", "mkdir", "cp", "true"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "usr/lib/one").write_text("1")
    (tree / "usr/share/two").write_text("2")
    made = tmp_path / "tree.tar"
    with tarfile.open(made, "w") as tar:
        tar.add(tree, ".")
    return made


#: All of them take a minute each way: CI tries those that share what they make.
ORDERS = {"shared": ("embedding", "oci", "python", "starts"), "forwards": TABLES, "backwards": TABLES[::-1]}


def test_builds(environment: dict[str, str]) -> None:
    """Of minibox alone; with its peers they are among the tables above."""
    done = bench("--rounds", "1", "--only", "minibox", "build", environment=environment)
    rows = re.findall(r"^  minibox build +\d", done.stdout, re.MULTILINE)
    assert len(rows) == 5 and "not usable" not in done.stdout, done.stdout
    assert re.search(r"its largest process +[1-9]\d* MiB", done.stdout), done.stdout


@pytest.mark.usefixtures("minibox")  # whose orphans are reaped
def test_results_as_a_file_and_a_page(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of all tables of a run; one that is measured anew replaces its own only."""
    results = tmp_path / "results/bench.json"
    bench("--rounds", "2", "--json", str(results), "python", "growth", environment=environment)
    first = json.loads(results.read_text())
    assert first["versions"]["minibox"] and first["processors"]
    assert len(first["tables"]["python"]["times"]["minibox --help"]) == 2
    assert set(first["tables"]["with many layers"]["series"]["run --rm"]) == {"1", "2"}
    bench("--rounds", "1", "--json", str(results), "python", environment=environment)
    second = json.loads(results.read_text())
    assert len(second["tables"]["python"]["times"]["minibox --help"]) == 1
    assert second["tables"]["with many layers"] == first["tables"]["with many layers"]
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(report, "PICTURES", tmp_path / "benchmarks")
    report.draw(second)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| minibox --help | " in page and "(benchmarks/with-many-layers.svg)" in page
    for each in (tmp_path / "benchmarks").iterdir():
        ElementTree.parse(each)


def bench(*words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it with few of everything."""
    few = {f"MINIBOX_BENCH_{name}": str(number) for name, number in FEW.items()}
    done = subprocess.run(
        [sys.executable, CHECKOUT / "tests/bench/bench.py", *words], env={**os.environ, **environment, **few},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300 * SLOWNESS,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("tables", ORDERS.values() if LONG else [ORDERS["shared"]])
def test_tables_in_any_order(tables: tuple[str, ...], archive: Path, environment: dict[str, str]):
    done = bench("--rounds", "1", *tables, environment={**environment, "MINIBOX_BENCH_ARCHIVE": str(archive)})
    titles = re.findall(r"^(\S.*?) {2,}", done.stdout, re.MULTILINE)
    firsts = {"starts": "start and end", "streams": "1 GiB", "python": "python", "containers": "run -d", "growth": "with many running", "images": "pull",
              "oci": "OCI: run", "embedding": "minibox.run of", "suites": "2 tests", "build": "build, cached"}  # fmt: skip
    places = [next(number for number, title in enumerate(titles) if title.startswith(firsts[name])) for name in tables]
    assert places == sorted(places), done.stdout
    assert not re.search(r"minibox.*not usable here", done.stdout), done.stdout
