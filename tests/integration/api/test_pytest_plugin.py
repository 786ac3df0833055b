"""The pytest plugin, as a suite that uses it sees it: each test here runs pytest on one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from textwrap import dedent

import pytest

from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root")


@pytest.fixture
def suite(environment, tmp_path):
    """Runs pytest on a module: ``suite("def test_it(sandbox): ...", "-v")``."""

    def run(text: str, *options: str, env: dict[str, str] | None = None):
        (tmp_path / "test_it.py").write_text(dedent(text))
        (tmp_path / "pytest.ini").touch()
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path)]
        return subprocess.run(
            words, env={**environment, **(env or {})}, cwd=tmp_path, capture_output=True, text=True, check=False,
            timeout=120 * SLOWNESS,
        )  # fmt: skip

    return run


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    last = done.stdout.strip().splitlines()[-1]
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}


def test_fixtures_and_marks(suite, minibox):
    done = suite("""\
        import minibox, pytest

        pytestmark = pytest.mark.minibox(env={"A": "module"}, memory="64m")

        def test_fresh(sandbox):
            assert isinstance(sandbox, minibox.Sandbox)
            sandbox.run(["touch", "/made"], check=True)

        def test_as_fresh(sandbox):
            assert sandbox.run(["ls", "/made"], capture_output=True).returncode

        @pytest.mark.minibox(env={"A": "test"}, hostname="here")
        def test_the_closest_mark_counts_and_the_others_too(sandbox, sandbox_factory):
            assert sandbox.run(["sh", "-c", "echo $A; hostname"], capture_output=True, text=True).stdout == "test\\nhere\\n"
            own = sandbox_factory("base", env={"A": "own"})
            assert own.id != sandbox.id
            assert own.run(["sh", "-c", "echo $A"], capture_output=True, text=True).stdout == "own\\n"

        @pytest.fixture(scope="module")
        def shared(module_sandbox_factory):
            return module_sandbox_factory()

        def test_one_for_the_module(shared):
            shared.run(["touch", "/made"], check=True)

        def test_is_the_same(shared, session_sandbox_factory):
            assert shared.run(["ls", "/made"], capture_output=True).returncode == 0
            session_sandbox_factory()

        def test_a_snapshot_is_forked(sandbox, sandbox_factory):
            sandbox.run(["touch", "/made"], check=True)
            with sandbox.snapshot() as snapshot:
                fork = sandbox_factory(snapshot, memory="32m")
                fork.run(["rm", "/made"], check=True)
            sandbox.run(["ls", "/made"], check=True)

        def test_network(minibox_network, sandbox_factory):
            server, client = (sandbox_factory(name=name, network=minibox_network) for name in ("server", "client"))
            assert client.run(["ping", "-c1", "server"], capture_output=True).returncode == 0
        """, "--strict-markers", "-W", "error")  # fmt: skip
    assert outcomes(done) == {"passed": 7}, done.stdout + done.stderr
    assert minibox("ps", "-aq").stdout == ""


FAILS = """\
    def test_fails(sandbox_factory):
        box = sandbox_factory(args=["sh", "-c", "echo it says so; sleep 1000"])
        box.run(["touch", "/made"], check=True)
        box.wait_for(log="it says so")
        assert False

    def test_passes(sandbox):
        pass
    """


def test_what_is_left_of_a_failed_tests_sandboxes_is_in_its_report(suite, minibox):
    done = suite(FAILS)
    assert outcomes(done) == {"failed": 1, "passed": 1}, done.stdout
    sections = re.findall(
        r"^-+ (\w+)[^\n]* of sandbox \w+ \([0-9a-f]{12}\) -+\n(.*?)\n(?=[-=])", done.stdout, re.M | re.S
    )
    found = dict(sections)
    assert (
        found["log"] == "it says so" and found["changed"] == "A /made" and "it has been running" in found["verdict"]
    ), done.stdout
    assert minibox("ps", "-aq").stdout == ""


def test_an_error_is_shown_where_the_test_asked_for_it(suite):
    done = suite(
        """
def test_it(sandbox):
    sandbox.run(["false"], check=True)
"""
    )
    assert "CalledProcessError: command ('false',)" in done.stdout and "check_returncode" not in done.stdout, (
        done.stdout
    )


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_those_of_failed_tests_are_kept_when_asked_and_looked_into_by_the_command_that_is_shown(
    suite, workers, minibox
):
    done = suite(FAILS, "--minibox-keep=failed", *workers)
    (command,) = re.findall(r"^minibox .*shell [0-9a-f]{12}$", done.stdout, re.M)
    (kept,) = minibox("ps", "-aq").stdout.split()
    assert command.endswith(f" shell {kept}")
    words = command.split()[1:]
    looked = minibox(*words, input="ls /made\n", env={"MINIBOX_ROOT": "/nowhere", "MINIBOX_RUNROOT": "/nowhere"})
    assert looked.stdout == "/made\n", looked.stderr
    minibox("rm", kept)
    assert minibox("ps", "-aq").stdout == ""


def test_one_that_the_test_has_closed_is_kept_too(suite, minibox):
    suite("""\
        def test_fails(sandbox_factory):
            with sandbox_factory() as box:
                box.run(["touch", "/made"], check=True)
                assert False
        """, "--minibox-keep=failed")  # fmt: skip
    (kept,) = minibox("ps", "-aq").stdout.split()
    assert minibox("diff", kept).stdout == "A /made\n"
    minibox("rm", kept)


def test_the_image_by_an_option_and_by_the_ini_file(suite, tmp_path):
    look = "def test_it(sandbox): assert sandbox.image == 'other'"
    (tmp_path / "pytest.ini").write_text("[pytest]\nminibox_image = nowhere\n")
    done = suite("import minibox\n" + look, "--minibox-image", "other", "--setup-only")
    assert "nowhere" not in done.stdout
    done = suite(look)
    assert "nowhere" in done.stdout, done.stdout


def test_where_the_host_cant_a_test_is_skipped_with_the_reason_or_fails_in_ci(suite, tmp_path):
    nowhere = {"MINIBOX_ROOT": "/proc/nowhere"}
    text = "def test_it(sandbox): pass\ndef test_another(): pass"
    done = suite(text, "-rs", env=nowhere)
    assert outcomes(done) == {"passed": 1, "skipped": 1}, done.stdout
    assert "this host can't run the test's sandboxes: " in done.stdout and "/proc/nowhere" in done.stdout
    assert outcomes(suite(text, "--minibox-missing=fail", env=nowhere)) == {"passed": 1, "error": 1}
    (tmp_path / "pytest.ini").write_text("[pytest]\nminibox_missing = fail\n")
    assert outcomes(suite(text, env=nowhere)) == {"passed": 1, "error": 1}


PREPARES = """\
import pathlib, pytest

def prepare(box):
    with open("prepared", "a") as file:
        file.write("once\\n")
    box.run(["sh", "-c", "for i in $(seq 1000); do echo $i >/tmp/$i; done"], check=True)

@pytest.fixture(scope="session")
def files(minibox_snapshot):
    return minibox_snapshot("files", prepare)

@pytest.mark.parametrize("number", range(6))
def test_it(files, sandbox_factory, number):
    box = sandbox_factory(files)
    count = box.run(["sh", "-c", "ls /tmp | wc -l; rm -r /tmp/*"], capture_output=True, text=True).stdout
    assert count == "1000\\n"
"""


def test_prepared_once_for_all_workers_and_runs_until_it_changes(suite, tmp_path, minibox):
    for text, times in ((PREPARES, 1), (PREPARES, 1), (PREPARES.replace("seq 1000", "seq 1 1000"), 2)):
        done = suite(text, "-n2")
        assert outcomes(done) == {"passed": 6}, done.stdout
        assert (tmp_path / "prepared").read_text() == "once\n" * times
    names = minibox("images", "--format", "{{.Repository}}").stdout.split()
    assert names.count("minibox-prepared/files") == 2
    assert minibox("ps", "-aq").stdout == ""


FOREVER = """\
import pathlib, pytest, time

@pytest.mark.parametrize("number", range(4))
def test_it(sandbox, minibox_network, sandbox_factory, number):
    sandbox_factory(network=minibox_network)
    pathlib.Path(f"began-{number}").touch()
    time.sleep(1000)
"""


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_killed_nothing_is_left(environment, tmp_path, workers, minibox, state):
    """Of pytest-xdist's controller and workers at once, as by the kernel out of memory."""
    (tmp_path / "test_it.py").write_text(FOREVER)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *workers, str(tmp_path)]
    with subprocess.Popen(
        words, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        deadline = time.monotonic() + 60 * SLOWNESS
        while len(list(tmp_path.glob("began-*"))) < (2 if workers else 1):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.05)
        assert len(minibox("ps", "-q").stdout.split()) == (4 if workers else 2)
        os.killpg(run.pid, 9)
    deadline = time.monotonic() + 60 * SLOWNESS
    while True:  # workers close their descriptors one after the other, of containers and networks
        shown = minibox("ps", "-aq").stdout + minibox("network", "ls", "-q", "--filter", "type=custom").stdout
        left = [name for kind in ("containers", "live", "networks") for name in os.listdir(state / "root" / kind)]
        if not left and not shown:
            break
        assert time.monotonic() < deadline, (left, shown)


def test_unused_it_imports_nothing(suite):
    done = suite(
        "import sys\ndef test_it(): assert not [m for m in sys.modules if m.startswith('minibox.') and m != 'minibox.pytest_plugin']"
    )
    assert outcomes(done) == {"passed": 1}, done.stdout


def test_all_workers_share_one_build(suite, tmp_path, minibox):
    context = tmp_path / "web"
    context.mkdir()
    (context / "Dockerfile").write_text("""\
FROM base
ARG VERSION=1
RUN --mount=type=cache,target=/c echo built >> /c/builds && sleep 1 && cp /c/builds /builds && echo $VERSION > /version
""")
    done = suite("""\
        import pytest

        @pytest.fixture(scope="session")
        def web(minibox_build):
            return minibox_build("web", build_args={"VERSION": "2"}, network="none")

        @pytest.mark.parametrize("number", range(4))
        def test_it(web, sandbox_factory, number):
            box = sandbox_factory(web)
            assert box.run(["cat", "/builds", "/version"], capture_output=True, text=True).stdout == "built\\n2\\n"

        def test_a_failure_is_shown(minibox_build, tmp_path):
            (tmp_path / "Dockerfile").write_text("FROM base\\nRUN exit 3\\n")
            minibox_build(tmp_path, network="none")
        """, "-n", "2", "--dist", "each")  # fmt: skip
    assert outcomes(done) == {"passed": 8, "failed": 2}, done.stdout
    assert "RUN '/bin/sh -c exit 3' failed" in done.stdout
