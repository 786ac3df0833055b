"""`explain` tells the truth: what it prints is what happens."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.probes import requires

pytestmark = requires("root")

SIMPLE = ("--rm", "--network", "none", "--userns", "host")
REPORT = """hostname; pwd; id -u; echo "$PATH"; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; cut -d: -f2,3 /proc/self/cgroup
umask; ulimit -n; ls -l /dev | awk '{print $1, $NF}'; cat /proc/self/mountinfo; exit 7"""


@pytest.mark.parametrize("options", [(), ("--userns", "host"), ("-t", "-m", "64m"), ("--network", "none")])
def test_as_many_steps_as_the_plan_has(minibox: Run, options: tuple[str, ...]) -> None:
    """The run's own trace says how many there are."""
    command = ("run", "--rm", *options, "base", "true")
    rows = json.loads(minibox("explain", "--json", *command).stdout)
    listed = minibox("explain", *command).stdout
    traced = minibox("run", "--trace", *command[1:])
    assert traced.returncode == 0, traced.stderr
    steps = re.findall(r"^ *(\d+) +(?:[\d-]+) +(?:parent|init|mounter) ", traced.stderr, re.M)
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    assert steps == numbers
    assert re.findall(r"^ {0,2}(\d+)  \S", listed, re.M) == numbers
    assert [str(row["index"]) for row in rows] == numbers
    for row in rows:
        assert row["actor"] in ("parent", "init", "mounter") and row["operation"] and row["does"] and row["why"], row
        assert re.fullmatch(r"[\w+.-]+\([1-8]\w*\)|", row.get("manual") or ""), row


def test_explain_changes_nothing(minibox: Run, state: Path) -> None:
    def listing() -> set[Path]:
        return {path for path in state.rglob("*") if "cache" not in path.parts}

    before = listing()
    assert minibox("explain", "run", "-v", "data:/data", "--name", "x", "base", "true").returncode == 0
    assert listing() == before


def comparable(output: str) -> tuple[list[str], list[str]]:
    """What doesn't change from one run to the next: lines, and mounts as place, type and options."""
    lines, mounts = [], []
    for line in output.splitlines():
        fields = line.split()
        if len(fields) > 8 and "-" in fields[6:]:
            mounts.append(f"{fields[4]} {fields[fields.index('-') + 1]} {fields[5]}")
        else:
            lines.append(re.sub(r"[0-9a-f]{12,64}", "ID", line))
    return lines, sorted(mounts)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-w", "/tmp/made", "-u", "1000:1000", "-e", "A=two words", "--ulimit", "nofile=100", "--tmpfs", "/scratch"),
        ("--read-only", "--hostname", "box", "--cap-drop", "CHOWN", "--security-opt", "no-new-privileges"),
    ],
    ids=["plain", "user", "locked"],
)
def test_the_script_starts_the_same_container(
    minibox: Run, state: Path, environment: dict[str, str], options: tuple[str, ...]
) -> None:
    command = (*SIMPLE, *options, "base", "sh", "-c", REPORT)
    printed = minibox("explain", "--shell", "run", *command)
    assert printed.returncode == 0, printed.stderr
    script = state / "start.sh"
    script.write_text(printed.stdout)
    by_hand = subprocess.run(
        ["sh", str(script)], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    ours = minibox("run", *command)
    assert ours.returncode == 7, ours.stderr
    assert by_hand.returncode == 7, by_hand.stderr
    lines, mounts = comparable(by_hand.stdout)
    our_lines, our_mounts = comparable(ours.stdout)
    assert mounts == our_mounts
    assert lines == our_lines
    assert not list((state / "root" / "containers").iterdir()), "the script left its directory"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ((), "--userns host --network none"),
        ((*SIMPLE, "--cap-drop", "ALL"), "default capabilities"),
        ((*SIMPLE, "-u", "1000", "--group-add", "20"), "without supplementary groups"),
    ],
)
def test_no_script_of_what_no_shell_can_do(minibox: Run, options: tuple[str, ...], hint: str) -> None:
    done = minibox("explain", "--shell", "run", *options, "base", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("minibox: write it as a shell script: ") and hint in done.stderr


def test_a_trace_shows_times(minibox: Run) -> None:
    done = minibox("run", "--trace", "--rm", "--network", "none", "base", "echo", "out")
    assert done.stdout == "out\n"
    rows = [line.split(maxsplit=3) for line in done.stderr.splitlines()]
    times = [int(row[1]) for row in rows if row[0].isdigit() and row[1].isdigit()]
    assert len(times) > 50 and 0 < sum(times) < 60_000_000
    assert any("mount" in row[3] and int(row[1]) > 0 for row in rows if row[0].isdigit() and row[1].isdigit())


@pytest.mark.parametrize("options", [(), ("--userns", "host")], ids=["own ids", "host's ids"])
def test_a_trace_shows_the_step_that_failed(minibox: Run, options: tuple[str, ...]) -> None:
    done = minibox("run", "--trace", *SIMPLE[:3], *options, "--sysctl", "net.core.nothing=1", "base", "true")
    assert (done.returncode, done.stdout) == (125, "")
    lines = done.stderr.splitlines()
    failed = next(index for index, line in enumerate(lines) if "FAILED:" in line)
    number = lines[failed - 1].split()[0]
    assert "ENOENT" in lines[failed] and "/proc/sys/net/core/nothing" in lines[failed]
    assert f"step {number} of " in lines[failed]
    message = next(line for line in lines if line.startswith("minibox: "))
    assert message.removeprefix("minibox: ") == lines[failed].partition("FAILED: ")[2]


def test_an_exec_and_a_stop_are_explained_and_nothing_happens(minibox: Run, state: Path) -> None:
    assert (
        minibox("run", "-d", "--name", "web", "-m", "64m", "-p", "127.0.0.1:0:80", "base", "sleep", "100").returncode
        == 0
    )
    execs = json.loads(minibox("explain", "--json", "exec", "-u", "1000", "web", "ls", "/").stdout)
    names = [row["operation"] for row in execs]
    assert names[0] == "clone_further" and names[-1] == "exec" and "setns" in names
    assert execs[-1]["arguments"]["argv"] == "ls /"
    stops = json.loads(minibox("explain", "--json", "stop", "-t", "3", "web").stdout)
    assert [row["operation"] for row in stops[:4]] == ["thaw_cgroup", "signal_first", "await_end", "kill_first"]
    assert stops[2]["arguments"]["timeout_s"] == "3"
    undone = {row["operation"]: row["arguments"] for row in stops[4:]}
    assert {"remove_file", "kill_cgroup", "cgroup_rmdir", "leave_network", "release_ids"} <= set(undone)
    listed = minibox("explain", "stop", "web").stdout
    assert "release the address" in listed and "$ rmdir /sys/fs/cgroup/" in listed
    # What a stop undoes is what the start has said before.
    assert minibox("inspect", "web").returncode == 0 and '"running"' in minibox("ps", "--json").stdout
    assert minibox("rm", "-f", "web").returncode == 0
    for row in stops[4:]:
        path = row["arguments"].get("path", "")
        assert not path or not Path(path).exists(), row
    assert minibox("explain", "stop", "web").returncode == 125
    assert minibox("explain", "--shell", "stop", "web").returncode == 125


def test_a_create_is_explained_by_its_start(minibox: Run) -> None:
    words = ("-m", "64m", "base", "true")
    made, run = (json.loads(minibox("explain", "--json", name, *words).stdout) for name in ("create", "run"))
    assert made == run


def test_a_network_is_wired_step_by_step(minibox: Run) -> None:
    rows = json.loads(minibox("explain", "--json", "run", "-p", "8080:80", "base", "true").stdout)
    by_name = {row["operation"]: row for row in rows}
    wiring = ["add_bridge", "add_veth", "add_address", "set_up", "add_route"]
    assert [row["operation"] for row in rows if row["operation"] in wiring] == wiring
    assert by_name["add_veth"]["shell"].startswith("ip link add mbv") and "netns $INIT" in by_name["add_veth"]["shell"]
    assert by_name["add_route"]["shell"].startswith("nsenter -t $INIT -n ip route add default via 10.")
    assert "dport 8080 dnat to 10." in by_name["publish_port"]["shell"]
