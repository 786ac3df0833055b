"""`minibox.Sandbox`: commands and files in a container that lives as long as a block."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from functools import partial
from pathlib import Path

import pytest

import minibox
from tests.container_box import EVER_LONGER_S
from tests.engines import wait_until

pytestmark = pytest.mark.requires("root")


def test_nothing_runs_in_it_but_an_init_that_reaps(api: None) -> None:
    with minibox.Sandbox("base") as box:

        def names() -> list[str]:
            listed = box.run(["ps", "-o", "pid,comm"], capture_output=True, text=True).stdout
            return [line.split()[1] for line in listed.splitlines()[1:]]

        box.run(["sh", "-c", "sleep 0.01 & exit"], check=True)
        wait_until(lambda: names() == ["init", "ps"], "the orphan is gone")


def test_commands_share_its_files_and_have_their_own_options(api: None) -> None:
    with minibox.Sandbox("base", env={"A": "1"}, cwd="/tmp") as box:
        box.run(["sh", "-c", "echo $A > file"], check=True)
        done = box.run(["sh", "-c", "cat; cat /tmp/file; echo $A$B; pwd; id -un"], input="in\n", capture_output=True,
                       text=True, env={"B": "2"}, cwd="/", user="nobody")  # fmt: skip
        assert done.stdout.split() == ["in", "1", "12", "/", "nobody"]


def test_popen_is_as_of_subprocess(api: None) -> None:
    with minibox.Sandbox("base") as box:
        with box.popen(["cat"], stdin=minibox.PIPE, stdout=minibox.PIPE, text=True) as cat:
            assert cat.stdin and cat.stdout and cat.poll() is None
            cat.stdin.write("line\n")
            cat.stdin.flush()
            assert cat.stdout.readline() == "line\n"
            with pytest.raises(minibox.TimeoutExpired):
                cat.wait(0.01)
            assert cat.communicate("more") == ("more", None)
            assert cat.returncode == 0
        sleeper = box.popen(["sleep", "600"])
        assert os.path.exists(f"/proc/{sleeper.pid}")
        sleeper.send_signal(signal.SIGTERM)
        assert sleeper.wait() == -signal.SIGTERM
        left = box.popen(["sleep", "600"])
    assert left.poll() == -signal.SIGKILL  # it went with the sandbox


def test_communicate_can_be_called_again_after_a_timeout(api: None) -> None:
    with minibox.Sandbox("base") as box:
        script = "echo 1; until [ -e /go ]; do sleep 0.05; done; echo 2"
        command = box.popen(["sh", "-c", script], stdout=minibox.PIPE)
        for timeout_s in EVER_LONGER_S:
            with pytest.raises(minibox.TimeoutExpired) as caught:
                command.communicate(timeout=timeout_s)
            if caught.value.stdout:
                break
        assert caught.value.stdout == b"1\n"
        box.write_file("/go", "")
        assert command.communicate()[0] == b"1\n2\n"


def test_a_timeout_ends_the_command_and_its_children_only(api: None) -> None:
    with minibox.Sandbox("base") as box:
        for timeout_s in EVER_LONGER_S:
            with pytest.raises(minibox.TimeoutExpired) as caught:
                box.run(["sh", "-c", "sleep 600 & echo begun; sleep 600"], capture_output=True, timeout=timeout_s)
            if caught.value.stdout:
                break
        assert caught.value.stdout == b"begun\n"
        ps = partial(box.run, ["ps"], capture_output=True, text=True, check=True)
        wait_until(lambda: "sleep 600" not in ps().stdout, "the killed are gone")
        assert "init" in ps().stdout


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600 & echo begun",
        "setsid sleep 600 & echo begun",  # an orphan in a session of its own, which has the pipe
        "(setsid sh -c 'sleep 600 & sleep 600 &' &); echo begun; sleep 600",
        "sleep 600 >/dev/null 2>&1 & setsid sleep 600 >/dev/null 2>&1 & echo begun; sleep 600",
    ],
)
def test_a_timeout_ends_what_the_command_left_behind(api: None, script: str) -> None:
    with minibox.Sandbox("base") as box, box.popen(["sleep", "700"], stdout=minibox.PIPE) as other:
        for timeout_s in EVER_LONGER_S:
            with pytest.raises(minibox.TimeoutExpired) as caught:
                box.run(["sh", "-c", script], capture_output=True, timeout=timeout_s)
            if caught.value.stdout:
                break
        assert caught.value.stdout == b"begun\n"
        ps = partial(box.run, ["ps", "-o", "args"], capture_output=True, text=True, check=True)
        wait_until(lambda: "sleep 600" not in ps().stdout, "the killed are gone")
        assert "sleep 700" in ps().stdout and other.poll() is None
        other.kill()


def test_files_go_in_and_out(api: None, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("of the host")
    with minibox.Sandbox("base") as box:
        box.write_file("/tmp/a", "text")
        box.write_file("/tmp/b", bytes(1 << 20), mode=0o600, user="nobody")
        assert box.read_file("/tmp/a") == b"text" and box.read_file("/tmp/b") == bytes(1 << 20)
        listed = box.run(["stat", "-c", "%a %u", "/tmp/a", "/tmp/b"], capture_output=True, text=True).stdout
        assert listed.split() == ["644", "0", "600", "65534"]
        box.put(tmp_path / "tree", "/tmp/tree")
        assert box.read_file("/tmp/tree/file") == b"of the host"
        box.run(["sh", "-c", "echo more >> /tmp/tree/file"], check=True)
        box.get("/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back" / "file").read_text() == "of the hostmore\n"


def test_no_link_leads_out_of_it(api: None, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with minibox.Sandbox("base") as box:
        box.run(["ln", "-s", str(tmp_path / "secret"), "/link"], check=True)
        box.run(["ln", "-s", "../../../../../..", "/up"], check=True)
        for path in ("/link", f"/up{tmp_path}/secret"):
            with pytest.raises(minibox.MiniboxError, match="No such file"):
                box.read_file(path)
        box.run(["mkfifo", "/fifo"], check=True)
        with pytest.raises(minibox.MiniboxError, match="not a regular file"):
            box.read_file("/fifo")


def test_a_main_process_can_be_waited_for(api: None) -> None:
    with minibox.Sandbox("base", ["sh", "-c", "read line; exit 5"]) as box:
        assert box.wait() == 5
        assert box.verdict.status == 5
        with pytest.raises(minibox.ContainerNotRunning, match="exit status 5"):
            box.run(["true"])


def test_it_is_closed_once_and_from_any_thread(api: None) -> None:
    box = minibox.Sandbox("base")
    threads = [threading.Thread(target=box.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    box.close()
    with pytest.raises(minibox.ContainerNotRunning, match="closed"):
        box.run(["true"])


def test_one_that_is_forgotten_warns_and_goes(api: None) -> None:
    box = minibox.Sandbox("base")
    process = f"/proc/{box.pid}"
    with pytest.warns(ResourceWarning, match="was not closed"):
        del box
        gc.collect()
    assert not os.path.exists(process)


def test_a_forked_child_owns_nothing(api: None) -> None:
    with minibox.Sandbox("base") as box:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                box.close()
                box.run(["true"])
            except minibox.ContainerNotRunning:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert box.run(["echo", "alive"], capture_output=True).stdout == b"alive\n"


def test_from_many_threads(api: None) -> None:
    found: list[int] = []

    def work(number: int) -> None:
        done = minibox.run("base", ["sh", "-c", f"exit {number}"], capture_output=True)
        found.append(done.returncode)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(16))


SERVER = "echo begins; mkdir /www; echo ok > /www/health; httpd -p 127.0.0.1:8080 -h /www; echo serves; sleep 600"


@pytest.mark.parametrize(
    ("script", "wanted", "told"),
    [
        ("printf ready; sleep 600", "ready", "ready"),
        ("echo first; printf 'name: ' >&2; sleep 600", "name: ", "first\nname: "),
        ("printf 'r\\303'; sleep 0.3; printf '\\244dy'; sleep 600", "r\xe4dy", "r\xe4dy"),  # not half a character
        ("printf 'a%.0s' $(seq 20000); printf ready; sleep 600", "ready", "a" * 20000 + "ready"),
    ],
)
def test_what_is_written_without_a_newline_is_in_the_log(api: None, script: str, wanted: str, told: str) -> None:
    with minibox.Sandbox("base", ["sh", "-c", script], network="none") as box:
        box.wait_for(log=wanted)
        assert box.logs() == told


def test_waiting_until_it_is_ready(api: None) -> None:
    with minibox.Sandbox("base", ["sh", "-c", SERVER]) as box:
        box.wait_for(log="serves")
        box.wait_for(log=re.compile("^begins$", re.MULTILINE))
        box.wait_for(port=8080)
        box.wait_for(http="/health", port=8080)
        box.wait_for(http="http://localhost:8080/health")
        box.wait_for(file="/www/health")
        box.wait_for(exec=["test", "-e", "/www/health"])
        assert box.logs() == "begins\nserves\n"
        for never in ({"port": 8081}, {"http": "/nothing", "port": 8080}, {"file": "/no"}, {"exec": ["false"]}):
            with pytest.raises(minibox.TimedOut, match="begins\n  serves"):
                box.wait_for(**never, timeout=0.1)
        with pytest.raises(minibox.UsageError, match="one of"):
            box.wait_for(port=1, file="/x")


def test_waiting_ends_when_the_main_process_does(api: None) -> None:
    with minibox.Sandbox("base", ["sh", "-c", "echo can not >&2; exit 3"]) as box:
        with pytest.raises(minibox.ContainerNotRunning, match="exit status 3.*\n  can not"):
            box.wait_for(port=80, timeout=600)
        assert box.verdict.log == ("can not",)
    assert box.verdict.log == ("can not",)


def test_a_flood_of_output_is_cut_off_at_its_beginning(api: None) -> None:
    with minibox.Sandbox("base", ["sh", "-c", "yes 0123456789 | head -c 40m; echo end"]) as box:
        box.wait()
        text = box.logs()
    assert text.endswith("end\n") and len(text) < 20 << 20


def test_an_images_own_command_is_a_service(api: None) -> None:
    with minibox.Sandbox("base") as box:
        box.commit("service:1", changes=['CMD ["sh", "-c", "echo $0 $A; sleep 600"]', "ENV A=b"])
    with minibox.Sandbox("service:1", service=True) as box:
        box.wait_for(log="sh b")
    with minibox.Sandbox("service:1") as box:
        assert "sleep 600" not in box.run(["ps"], capture_output=True, text=True).stdout


def test_what_has_changed_can_be_seen_and_kept(api: None) -> None:
    with minibox.Sandbox("base") as box:
        box.write_file("/etc/new", "kept")
        box.run(["rm", "/etc/group"], check=True)
        assert box.diff() == [("C", "/etc"), ("D", "/etc/group"), ("A", "/etc/new")]
        image = box.commit("made:1")
    assert image.startswith("sha256:")
    assert minibox.run("made:1", ["cat", "/etc/new"], capture_output=True).stdout == b"kept"


def test_it_can_be_kept_for_a_look(api: None, request: pytest.FixtureRequest) -> None:
    command = request.getfixturevalue("minibox")
    with minibox.Sandbox("base", ["sh", "-c", "echo wrote; exit 7"], name="kept") as box:
        box.wait_for(log="wrote")
        assert box.wait() == 7
        box.keep()
    assert "exited" in command("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout
    assert command("logs", "kept").stdout == "wrote\n"
    assert "exit status 7" in command("why", "kept").stdout
    assert command("rm", "kept").returncode == 0


def test_a_signal_of_ones_own_is_told_so(api: None) -> None:
    with minibox.Sandbox("base", ["sleep", "100"]) as box:
        box.kill()
        assert box.wait() == -9
        assert (box.verdict.kind, box.verdict.summary) == ("killed", "this program sent it SIGKILL")


def test_what_is_closed_says_so(api: None) -> None:
    with minibox.Sandbox("base") as box:
        child = os.fork()
        if child == 0:
            try:
                box.run(["true"])
            except minibox.ContainerNotRunning as error:
                os._exit("belongs to the process from which this one was forked" not in str(error))
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for attempt in (box.diff, box.snapshot, box.logs, lambda: box.commit("x"), lambda: box.read_file("/x")):
        with pytest.raises(minibox.MiniboxError, match=f"{box.name}.*(closed|no main process)"):
            attempt()


def test_what_an_answer_said_last_is_told(api: None) -> None:
    with minibox.Sandbox("base", ["httpd", "-f", "-p", "80", "-h", "/etc"]) as box:
        box.wait_for(port=80)
        with pytest.raises(minibox.TimedOut, match=r"was not ready after 0.3 s \(404 Not Found\)"):
            box.wait_for(http="/none", timeout=0.3)
        with pytest.raises(minibox.TimedOut, match=r"\(Connection refused"):
            box.wait_for(http="/", port=81, timeout=0.3)
        with pytest.raises(minibox.MiniboxError, match=f"copy {box.name}:/none"):
            box.get("/none", "/tmp")
        with box.popen(["sleep", "9"]) as command:
            assert repr(command) == f"<minibox.Popen ['sleep', '9'] pid {command.pid}>"
            command.kill()
        assert repr(command) == "<minibox.Popen ['sleep', '9'] returncode -9>"
