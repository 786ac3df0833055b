"""What the command line may import: a start has no time for more."""

from __future__ import annotations

import subprocess
import sys

import pytest

import minibox

CHECKOUT = minibox.__path__[0].rpartition("/")[0]
HOT_FORBIDDEN = """typing re json dataclasses enum pathlib subprocess signal argparse logging tempfile shutil click rich pyroute2 inspect asyncio ssl contextlib""".split()
HELP_FORBIDDEN = "pyroute2 rich asyncio ssl minibox._native minibox.engine.container.start".split()


def modules_after(code: str, *flags: str) -> set[str]:
    script = f"import sys\nsys.path[:0] = [{CHECKOUT!r}, *{[p for p in sys.path if p]!r}]\n{code}\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_reading_a_run_imports_nothing_slow():
    code = """
from minibox.cli.main import main, read_globals, make_settings
from minibox.cli.run_options import parse
given, rest = read_globals(["--root", "/x", "run", "-it", "--rm", "-m", "64m", "--cpus=1.5", "base", "true"])
assert make_settings(given, {}) and parse(rest[1:]).memory_bytes
import minibox.engine.container.shell
"""
    assert not modules_after(code, "-I", "-S") & set(HOT_FORBIDDEN)


def test_help_imports_nothing_heavy():
    code = "from minibox.cli.main import main\nassert main(['--help']) == 0"
    assert not modules_after(code) & set(HELP_FORBIDDEN)


def test_help_of_the_tree_loads_no_command():
    code = "from minibox.cli.main import main\nassert main([]) == 0"
    assert not modules_after(code) & {
        f"minibox.cli.{module}" for module in ("commands.run", "commands.image", "commands.system", "format.plan")
    }


@pytest.mark.parametrize("module", ["create", "run", "life", "exec"])
def test_an_oci_runtime_imports_nothing_slow(module):
    """An engine starts it several times a container."""
    code = f"import minibox.oci_cli.main, minibox.oci_cli.life, minibox.engine.oci.{module}"
    loaded = modules_after(code, "-I", "-S")
    assert not loaded & set(HOT_FORBIDDEN) and "minibox.engine.spec.runtime_spec" not in loaded


def test_a_question_for_a_state_imports_next_to_nothing():
    code = "import minibox.oci_cli.main, minibox.oci_cli.life, minibox.engine.oci.state"
    ours = {name for name in modules_after(code, "-I", "-S") if name.startswith("minibox.")}
    assert not ours & {
        "minibox._native",
        "minibox.plan",
        "minibox.linux",
        "minibox.oci",
        "minibox.errors",
        "minibox.record",
    }
    assert len(ours) < 14
