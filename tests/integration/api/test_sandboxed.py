"""`@minibox.sandboxed`: a function in a sandbox of its own, and what its caller gets of it."""

from __future__ import annotations

import datetime
import decimal
import os
import pickle
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import minibox
from tests.conftest import AS_USER, CHECKOUT
from tests.integration.api import sandboxed_functions as functions
from tests.probes import requires

pytestmark = requires("root")


def test_arguments_go_in_and_the_result_comes_back(api: None) -> None:
    assert functions.add(1, b=2) == 3
    assert functions.add.__doc__ == "Adds." and functions.add.__name__ == "add"
    data = os.urandom(3 << 20)
    assert functions.identity(data) == data


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, "x", b"y", (1j, True)], "b": {1, 2}, "c": frozenset("z")},
        [datetime.datetime(2000, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(3), decimal.Decimal("1.5")],
        [uuid.UUID(int=5), Path("/a/b"), bytearray(b"q"), ValueError("v", 1)],
    ],
    ids=["None", "plain", "times", "others"],
)
def test_pythons_own_types_come_back(api: None, value: Any) -> None:
    assert repr(functions.identity(value)) == repr(value)


def test_other_types_come_back_where_they_are_allowed(api: None) -> None:
    assert functions.point(5) == functions.Point(5, 1)
    with pytest.raises(functions.Odd, match="negative"):
        functions.point(-1)
    assert functions.trusted() == (functions.Point(3, 4), {datetime.date(2000, 1, 1)})


def test_what_is_not_allowed_is_never_loaded(api: None, tmp_path: Path) -> None:
    with pytest.raises(minibox.UntrustedResult, match=r"sandboxed_functions.Point, which is not allowed") as caught:
        functions.unexpected("point")
    assert "allow=[Point]" in str(caught.value.hint)
    with pytest.raises(minibox.UntrustedResult, match=r"subprocess.Popen, which is not allowed"):
        functions.unexpected("evil")
    assert not os.path.exists("/tmp/minibox-evil")
    with pytest.raises(minibox.RemoteError, match=r"sandboxed_functions.Odd: very") as raised:
        functions.unexpected("odd")
    assert "in unexpected" in str(raised.value.__cause__)
    with pytest.raises((minibox.RemoteError, AttributeError), match="lambda"):
        functions.unexpected("lambda")
    with pytest.raises(minibox.SandboxCrashed):
        functions.unexpected("interrupt")


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 100, (1 << 60).to_bytes(8, "little"), b"\x03" + bytes(7) + b"abc",
     (lambda packed: len(packed).to_bytes(8, "little") + packed)(pickle.dumps((1, 2, 3)))],
    ids=["nothing", "noise", "too long", "no pickle", "no answer"],
)  # fmt: skip
def test_a_liar_is_told(api: None, data: bytes) -> None:
    with pytest.raises((minibox.UntrustedResult, minibox.SandboxCrashed)):
        functions.lie(data)


def test_an_exception_has_its_traceback(api: None) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        functions.divide(0)
    cause = str(caught.value.__cause__)
    assert "return 1 / by" in cause and cause.count('File "') == 1, cause


@requires("cgroup:memory")
def test_a_limit_is_an_exception_with_a_verdict(api: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(minibox.TimeoutExpired) as late:
        functions.sleep()
    assert late.value.verdict and late.value.verdict.kind == "wall-time"
    for function, kind in ((functions.fill_memory, "out-of-memory"), (functions.burn, "cpu-time")):
        with pytest.raises(minibox.LimitExceeded) as caught:
            function()
        assert caught.value.verdict.kind == kind and caught.value.usage.wall_s > 0
    with pytest.raises(minibox.LimitExceeded) as loud:
        functions.shout()
    assert loud.value.verdict.kind == "output"
    assert len(capfd.readouterr().out) == 10 << 10


@pytest.mark.parametrize(
    ("how", "kind", "status"), [("exit", "exited", 3), ("system exit", "exited", 4), ("abort", "crashed", 134)]
)
def test_a_crash_is_an_exception_with_a_verdict(api: None, how: str, kind: str, status: int) -> None:
    with pytest.raises(minibox.SandboxCrashed) as caught:
        functions.die(how)
    assert (caught.value.verdict.kind, caught.value.verdict.status) == (kind, status)
    assert not isinstance(caught.value, minibox.LimitExceeded)


def test_it_sees_what_it_needs_and_no_more(api: None) -> None:
    found = functions.what_is_there()
    visible = {name for name in ("bin", "lib", "lib32", "lib64", "usr") if os.path.isdir(f"/{name}")}
    shown = {
        path.split("/")[1] for path in (sys.prefix, sys.base_prefix, str(CHECKOUT), *map(os.path.abspath, sys.path))
    }
    assert set(found["root"]) - visible <= shown | {"dev", "etc", "proc", "sys", "tmp"}
    assert set(found["etc"]) <= {"hosts", "hostname", "resolv.conf", "ld.so.cache", "localtime"}
    assert found["links"] == ["lo"] and found["writable"] == []
    assert set(found["environment"]) <= {"PATH", "HOME", "HOSTNAME", "LC_CTYPE"}
    assert int(found["capabilities"], 16) == 0
    assert found["descriptors"] <= 6 and found["prefix"] == sys.prefix


def test_inside_a_sandbox_it_is_just_called(api: None) -> None:
    assert functions.nested(4) == 5


@pytest.mark.parametrize(
    ("function", "says"),
    [(lambda: None, "can't import a lambda by name"), (pickle.dumps, ""), (3, "not a function")],
)
def test_what_can_not_be_found_by_its_name_is_refused(function: Any, says: str) -> None:
    if not says:
        assert callable(minibox.sandboxed(function))
        return
    with pytest.raises(minibox.UsageError, match=says):
        minibox.sandboxed(function)


def test_a_coroutine_is_refused() -> None:
    async def coroutine() -> None: ...

    with pytest.raises(minibox.UsageError, match="coroutines can.t be sandboxed"):
        minibox.sandboxed(coroutine)


def test_a_closure_is_refused() -> None:
    value = 3

    def closure() -> int:
        return value

    with pytest.raises(minibox.UsageError, match="can't import a nested function by name"):
        minibox.sandboxed(closure)


PROGRAM = """
import minibox

@minibox.sandboxed(memory="128m")
def double(value):
    return Value(value.number * 2).number

class Value:
    def __init__(self, number):
        self.number = number

if __name__ == "__main__":
    print(double(Value(21)))
"""


def test_a_script_is_run_again_inside(environment: dict[str, str], session_directory: Path) -> None:
    script = session_directory / "script.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_script_in_a_home_shows_itself_and_nothing_else_of_it(
    environment: dict[str, str], session_directory: Path
) -> None:
    home = session_directory / "home" / "ann"
    home.mkdir(parents=True)
    (home / "secret").write_text("x")
    script = home / "script.py"
    script.write_text(
        PROGRAM.replace(
            "return Value", "import os; assert os.listdir(os.path.dirname(__file__)) == ['script.py']; return Value"
        )
    )
    done = subprocess.run(
        [sys.executable, script], env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_program_without_a_file_says_so(environment: dict[str, str]) -> None:
    code = "import minibox, sys\nsys.modules['cloudpickle'] = None\n@minibox.sandboxed\ndef one(): return 1\none()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "this program is not a file" in done.stderr and "hint: pip install cloudpickle" in done.stderr


CELLS = """
import os, threading, minibox

class Value:
    def __init__(self, number):
        self.number = number

def twice(number):
    return number * 2

@minibox.sandboxed(allow=[Value])
def double(value):
    assert os.getpid() != PARENT
    return Value(helper(value.number))

@minibox.sandboxed
def helper(number):
    return twice(number)

PARENT = os.getpid()
print(type(double(Value(21))) is Value, double(Value(21)).number, helper(3))
"""


@pytest.mark.parametrize("how", ["of a command line", "of a notebook", "typed after a script"])
def test_functions_that_no_file_has(environment: dict[str, str], session_directory: Path, how: str) -> None:
    words = [sys.executable, "-c", CELLS]
    if how == "of a notebook":  # a cell has a name of a file that isn't there
        program = f"exec(compile({CELLS!r}, '/tmp/ipykernel_1/2.py', 'exec'))"
        words = [sys.executable, "-c", program]
    elif how == "typed after a script":
        script = session_directory / "before.py"
        script.write_text("number = 1\n")
        words = [sys.executable, "-c", f"import runpy, sys; main = sys.modules['__main__']; main.__file__ = {str(script)!r}; "
                 f"exec(compile({CELLS!r}, '<stdin>', 'exec'), main.__dict__)"]  # fmt: skip
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True 42 6\n"), done.stderr


UNGUARDED = {
    "a sandboxed function": "print(double(21))",
    "minibox": "minibox.run('base', ['true']); print(double(21))",
    "a sandbox": "with minibox.Sandbox('base') as box: print(double(21))",
}


@pytest.mark.parametrize("what", UNGUARDED)
def test_a_script_without_a_guard_says_so(what: str, environment: dict[str, str], session_directory: Path) -> None:
    script = session_directory / "unguarded.py"
    script.write_text(f"import minibox\n@minibox.sandboxed\ndef double(x): return 2 * x\n{UNGUARDED[what]}\n")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-2:]
    assert "sandboxed double: the program's module-level code runs again in the sandbox" in last[0]
    assert last[1] == 'hint: guard module-level code: put it below if __name__ == "__main__":'


@pytest.mark.parametrize("line", ["open('/data/of/mine')", "import sys; sys.exit(main())"])
def test_module_level_code_that_fails_inside_is_named(
    line: str, environment: dict[str, str], session_directory: Path
) -> None:
    script = session_directory / "fails.py"
    script.write_text(
        "import minibox\n@minibox.sandboxed\ndef double(x): return 2 * x\ndef main(): return 0\n"
        f"if __name__ == '__main__': double(1)\n{line}\n"
    )
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "hint: this was raised by the program's module-level code" in done.stderr


def test_a_python_that_only_root_may_enter(environment: dict[str, str], session_directory: Path) -> None:
    """As under /root: its modules are in a directory that is root's alone."""
    private = session_directory / "private"
    private.mkdir(mode=0o700)
    (private / "hidden.py").write_text("import minibox\n@minibox.sandboxed\ndef one():\n    return 1\n")
    code = f"import sys; sys.path.insert(0, {str(private)!r}); import hidden; print(hidden.one())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_module_that_only_an_import_hook_finds(environment: dict[str, str], session_directory: Path) -> None:
    """As pytest's importlib mode, or an editable installation."""
    hidden = session_directory / "elsewhere"
    hidden.mkdir()
    (hidden / "far.py").write_text("import minibox\n@minibox.sandboxed\ndef one():\n    return 1\n")
    code = (
        "import sys; from importlib.util import *; "
        f"spec = spec_from_file_location('far', {str(hidden / 'far.py')!r}); "
        "sys.modules['far'] = far = module_from_spec(spec); spec.loader.exec_module(far); print(far.one())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_from_many_threads(api: None) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(functions.identity, range(18))) == list(range(18))


@requires("user")
def test_an_ordinary_user_has_them_too(
    user_environment: dict[str, str], user_command: list[str], session_directory: Path
) -> None:
    script = session_directory / "of_user.py"
    script.write_text(PROGRAM.replace('(memory="128m")', ""))
    paths = [word for word in user_command if word.startswith("PYTHONPATH=")]
    python = [*user_command[:-2]] if paths else [sys.executable]
    done = subprocess.run(
        [*python, str(script)], env=user_environment, capture_output=True, text=True, check=False, **AS_USER
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
