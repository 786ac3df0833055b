"""Podman's usual commands with minibox-oci and with crun: output, status and what is left are the same.

Ten here, all by `make long`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import IMAGE, Client, busybox_archive, remove_cgroups, runtime, unmount_below
from tests.interop.test_oci_podman import CGROUP, podman, settle
from tests.peers import LONG
from tests.probes import requires

pytestmark = requires("root", "command:podman", "command:conmon", "command:crun", "command:busybox")
STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
#: `run` and `create` get a cgroup and no network; NAME is the image, PLACE a directory with a file.
CASES = {
    "home of a user": ["run --rm --user 100 NAME printenv HOME", "run --rm --user guest NAME printenv HOME"],
    "environment": ["run --rm -e A=1 -e A=2 --env-file PLACE/env NAME sh -c 'env | grep -v HOSTNAME | sort'"],
    "exec": ["run -d --name a -e A=1 NAME sleep 1000", "exec -e A=2 -u guest -w /tmp a sh -c 'id; pwd; echo $A $HOME'", "exec a false"],
    "capabilities": [f"run --rm --cap-drop all --cap-add chown NAME sh -c \"{STATUS}\"", f"run --rm --privileged NAME sh -c \"{STATUS}\""],
    "mounts": ["run --rm -v PLACE:/data:ro -v v1:/v NAME sh -c 'cat /data/file; touch /data/x; touch /v/x; ls /v'", "volume ls -q"],
    "tmpfs": ["run --rm --tmpfs /t:ro,size=1m --tmpfs /u:mode=700 NAME sh -c 'grep -E \" /[tu] \" /proc/self/mounts | sort; touch /t/x; stat -c %a /u'"],
    "statuses": ["run --rm NAME sh -c 'exit 7'", "run --rm NAME nothing", "run --rm NAME /etc", "run --rm -w /none/here NAME pwd"],
    "stop": ["run -d --name a NAME sh -c 'trap \"echo bye; exit 3\" TERM; while :; do sleep 0.1; done'", "exec a true", "stop a", "wait a", "logs a"],
    "pause": ["run -d --name a NAME sleep 1000", "pause a", "exec a true", "ps --format {{.State}}", "unpause a", "kill a", "wait a"],
    "init": ["run --rm --init NAME sh -c 'cat /proc/1/comm; ps | wc -l'"],
    # by `make long`, too
    "user by number and group": ["run --rm --user 7:8 --group-add 20 NAME id", "run --rm --user 4321 NAME id"],
    "ids of its own": ["run --rm --userns auto NAME sh -c 'cat /proc/self/uid_map | wc -l; id -u'", "run --rm --uidmap 0:200000:1000 NAME cat /proc/self/uid_map"],
    "keep-id": ["run --rm --userns keep-id NAME id -u"],
    "read-only": ["run --rm --read-only NAME sh -c 'touch /x; touch /tmp/x; touch /dev/shm/x && echo ok'", "run --rm --read-only --read-only-tmpfs=false NAME touch /tmp/x"],
    "host name": ["run --rm --hostname box NAME hostname", "run --rm --uts host NAME true", "run --rm --add-host a:1.2.3.4 NAME cat /etc/hosts"],
    "limits": ["run --rm --ulimit nofile=100:200 NAME sh -c 'ulimit -Sn; ulimit -Hn'", "run --rm --pids-limit 30 NAME true"],
    "oom score": ["run --rm --oom-score-adj 500 NAME cat /proc/self/oom_score_adj"],
    "kernel settings": ["run --rm --sysctl kernel.shmmni=1234 NAME cat /proc/sys/kernel/shmmni", "run --rm --sysctl kernel.bogus=1 NAME true"],
    "devices": ["run --rm --device /dev/null:/dev/mine:r NAME stat -c '%A %u %g %t %T' /dev/mine", "run --rm NAME ls /dev"],
    "seccomp": ["run --rm --security-opt seccomp=PLACE/seccomp.json NAME sh -c 'mkdir /x; echo $?'", "run --rm --security-opt seccomp=unconfined NAME grep Seccomp: /proc/self/status"],
    "no new privileges": ["run --rm --security-opt no-new-privileges NAME grep NoNewPrivs /proc/self/status"],
    "masks": ["run --rm NAME sh -c 'cat /proc/kcore | wc -c; ls /proc/acpi /sys/firmware; echo x > /proc/sys/kernel/hostname'", "run --rm --security-opt unmask=/proc/acpi NAME true", "run --rm --security-opt mask=/bin NAME ls /bin"],
    "umask": ["run --rm --umask 0077 NAME umask"],
    "copy": ["create --name a NAME true", "cp PLACE/file a:/tmp/copied", "cp a:/tmp/copied -", "start -a a", "cp a:/none -"],
    "copy while it runs": ["run -d --name a -v v1:/v NAME sleep 1000", "cp PLACE/file a:/v/file", "exec a cat /v/file", "cp a:/etc/passwd -"],
    "diff and commit": ["run --name a NAME sh -c 'echo x > /new; rm /etc/group'", "diff a", "commit -q a made", "run --rm made cat /new"],
    "restart": ["run -d --name a NAME sh -c 'echo x >> /log; sleep 1000'", "exec a true", "restart -t 0 a", "exec a cat /log"],
    "restart policy": ["run --name a --restart on-failure:2 NAME sh -c 'echo x; exit 3'", "logs a", "inspect --format {{.RestartCount}} a"],
    "rename and inspect": ["create --name a NAME true", "rename a b", "inspect --format {{.Name}}{{.State.Status}} b", "start b", "wait b", "inspect --format {{.State.ExitCode}}{{.State.OOMKilled}} b"],
    "logs": ["run --name a NAME sh -c 'for i in 1 2 3; do echo $i; done; echo err >&2'", "logs a", "logs --tail 1 a"],
    "top": ["run -d --name a NAME sleep 1000", "top a user args", "top a -o args"],
    "stats": ["run -d --name a NAME sleep 1000", "stats --no-stream --format {{.Name}}{{.PIDs}} a"],
    "update": ["run -d --name a --memory 64m NAME sleep 1000", "inspect --format {{.HostConfig.Memory}} a", "exec a true"],
    "health": ["run -d --name a --health-cmd 'test -e /well' --health-interval disable NAME sleep 1000", "healthcheck run a", "exec a touch /well", "healthcheck run a", "inspect --format {{.State.Health.Status}} a"],
    "memory": ["run --rm --memory 24m --memory-swap 24m NAME sh -c 'exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60'"],
    "secret": ["secret create s1 PLACE/file", "run --rm --secret s1 NAME cat /run/secrets/s1", "run --rm --secret s1,type=env,target=S NAME printenv S", "secret rm s1"],
    "pod": ["pod create --name p --infra-image NAME --infra-command 'sleep 1000' --share ipc,uts,pid --network none", "run --pod p --name a NAME sh -c 'hostname; cat /proc/1/comm'", "pod ps --format {{.Name}}{{.NumberOfContainers}}", "pod stop -t 0 p", "pod rm -f p"],
    "share namespaces": ["run -d --name a NAME sleep 1000", "run --rm --pid container:a --ipc container:a NAME sh -c 'cat /proc/1/comm'", "run --rm --pid host NAME true"],
    "kube": ["kube play PLACE/kube.yaml", "logs pod-one", "kube down PLACE/kube.yaml"],
    "generate": ["create --name a -e A=1 NAME sleep 10", "generate systemd --no-header a"],
    "labels and filters": ["run -d --name a --label k=v NAME sleep 1000", "ps --filter label=k=v --format {{.Names}}", "ps --filter label=k=w --format {{.Names}}"],
    "entry point": ["run --rm --entrypoint echo NAME hi", "run --rm --entrypoint '[\"echo\", \"a\"]' NAME b", "run --rm --entrypoint /none NAME"],
    "input": ["run --rm -i NAME cat", "run --rm NAME cat"],
    "detach and attach": ["run -d --name a NAME sh -c 'while [ ! -e /go ]; do sleep 0.1; done; echo went; exit 4'", "exec -d a touch /go", "wait a", "logs a"],
    "exec statuses": ["run -d --name a NAME sleep 1000", "exec a nothing", "exec a /etc", "exec a sh -c 'kill -9 $$'", "exec -u nosuch a true"],
    "privileged exec": ["run -d --name a --cap-drop all NAME sleep 1000", f"exec --privileged a sh -c \"{STATUS}\"", f"exec a sh -c \"{STATUS}\""],
    "hooks directories": ["--hooks-dir PLACE/hooks run --rm -v PLACE:/d --annotation hook=yes NAME cat /d/hooked", "--hooks-dir PLACE/hooks run --rm -v PLACE:/d NAME cat /d/hooked"],
    "systemd": ["run --rm --systemd always NAME sh -c 'grep -E \" /run(/lock)? | /tmp \" /proc/self/mounts | cut -d\" \" -f2,3; printenv container'"],
    "keep groups": ["run --rm --group-add keep-groups NAME id -G"],
    "export": ["create --name a NAME true", "export -o PLACE/a.tar a", "import -q PLACE/a.tar again", "run --rm again sh -c 'echo again'"],
    "volumes from": ["run -d --name a -v v1:/v NAME sh -c 'echo x > /v/x; sleep 1000'", "exec a true", "run --rm --volumes-from a NAME cat /v/x"],
    "mount options": ["run --rm --mount type=tmpfs,destination=/t,tmpfs-mode=700 --mount type=bind,source=PLACE,destination=/d,ro=true NAME sh -c 'stat -c %a /t; touch /d/x'", "run --rm --mount type=bind,source=/none,destination=/d NAME true"],
    "shm": ["run --rm --shm-size 1m NAME sh -c 'df -k /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2'"],
    "terminal": ["run --rm -t NAME sh -c 'test -t 1 && tty'", "run -d -t --name a NAME sleep 1000", "exec -t a tty"],
}  # fmt: skip
RUN = list(CASES) if LONG else list(CASES)[:10]
KUBE = """apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  hostPID: true
  hostNetwork: true
  restartPolicy: Never
  containers:
  - {name: one, image: "localhost/%s:latest", command: [/bin/echo, of kube], imagePullPolicy: Never}
"""
HOOK = {"version": "1.0.0", "when": {"annotations": {"^hook$": "yes"}}, "stages": ["prestart"]}


def furnish(place: Path) -> None:
    """What the cases need of files."""
    (place / "hooks").mkdir()
    (place / "file").write_text("content\n")
    os.utime(place / "file", (10**9, 10**9))  # the archives of `cp` show it
    (place / "env").write_text("FROM_FILE=1\n")
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]
    (place / "seccomp.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    (place / "kube.yaml").write_text(KUBE % IMAGE)
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo yes >> {place}/hooked"]}
    (place / "hooks/one.json").write_text(json.dumps(HOOK | {"hook": hook}))


@pytest.fixture(scope="module")
def engines(session_directory: Path) -> Iterator[dict[str, tuple[Client, Path]]]:
    """Podman with each runtime, with a place of its own."""
    archive = busybox_archive(session_directory / "peers-podman.tar")
    found = {}
    for name, path in (("minibox", runtime()), ("crun", "/usr/bin/crun")):
        place = session_directory / f"p-{name[0]}"
        (place / "files").mkdir(parents=True)
        furnish(place / "files")
        found[name] = podman(place, archive, "overlay", path), place / "files"
    try:
        for client, _ in found.values():
            client("import", "--change", 'CMD ["/bin/pause"]', archive, "pause")  # for pods of kube play
            client("run", "--rm", "--network", "none", "--cgroup-parent", f"/{CGROUP}", IMAGE, "true")
        yield found
    finally:
        for client, files in found.values():
            client("pod", "rm", "--all", "--force", "--time", "0", status=None)
            client("rm", "--all", "--force", "--time", "0", "--volumes", status=None)
            settle(client)
            unmount_below(files.parent)
        remove_cgroups(CGROUP)


def transcript(client: Client, files: Path, case: list[str]) -> list[tuple[str, int, str]]:
    """Command, status and output of each, and what is left."""
    lines = []
    for command in [*case, "ps -a --format {{.Names}},{{.State}},{{.ExitCode}}", "volume ls -q", "pod ps -q"]:
        words = [word.replace("NAME", IMAGE).replace("PLACE", str(files)) for word in shlex.split(command)]
        for at, word in enumerate(words[:3]):
            if word in ("run", "create") and words[max(at - 1, 0)] not in ("pod", "secret", "healthcheck"):
                shared = "--pod" in words or "--network" in words
                words[at + 1 : at + 1] = ["--cgroup-parent", f"/{CGROUP}", *([] if shared else ["--network", "none"])]
                if "--pod" in words:
                    words[at + 1 : at + 3] = []
                break
        done = client(*words, status=None, input="in\n")
        lines.append((command, done.returncode, plain(done.stdout, files)))
    client("pod", "rm", "--all", "--force", "--time", "0", status=None)
    client("rm", "--all", "--force", "--time", "0", "--volumes", status=None)
    client("volume", "prune", "--force", status=None)
    settle(client)
    return lines


def plain(text: str, files: Path) -> str:
    """Without what differs from one container to the next, and the link /dev/core, which crun makes and runc doesn't."""
    text = text.replace(str(files.parent), "PLACE").replace(runtime(), "RUNTIME").replace("/usr/bin/crun", "RUNTIME")
    text = re.sub(r"\b[0-9a-f]{12}\b|\b[0-9a-f]{25}\b|\b[0-9a-f]{64}\b", "ID", text)
    text = re.sub(r"(Less than a|\d+) seconds? ago", "just now", text)
    return re.sub(r"(ID )[a-z]+_[a-z0-9]+$", r"\1NAME", text, flags=re.MULTILINE).replace("core\nfd\n", "fd\n")


@pytest.mark.parametrize("case", RUN)
def test_it_is_as_with_crun(engines, case):
    found = {name: transcript(client, files, CASES[case]) for name, (client, files) in engines.items()}
    assert found["minibox"] == found["crun"]


def test_there_are_fifty():
    assert len(CASES) >= 50
