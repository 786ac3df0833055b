"""What the options of `minibox run` and `minibox exec` are tried with: ``good`` values, which start a container, and
``bad`` ones, whose error is compared. ``{work}`` is the directory of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence

Values = tuple[list[list[str]], list[list[str]]]


def _values(name: str, good: list[str], bad: Sequence[str] = ()) -> Values:
    return [[f"{name}={value}"] for value in good], [[f"{name}={value}"] for value in bad]


#: Of `minibox run`, by option.
RUN: dict[str, Values] = {
    "-i": ([["-i"]], [["-i=perhaps"]]),
    "-t": ([["-t"], ["-it"]], [["--tty=2"]]),
    "--env": ([["-e", "A=1"], ["-e", "EMPTY="], ["-e", "FROM_CALLER"], ["-e", "A=1", "-e", "A=two words"]], [["-e", "=x"]]),
    "--env-file": _values("--env-file", ["{work}/env"], ["{work}/no-env", "{work}/bad-env", "{work}/share"]),
    "--workdir": _values("--workdir", ["/tmp", "/new/one", "/etc/../tmp"], ["relative", ""]),
    "--user": _values("--user", ["1000", "1000:1001", "root", "65534:65534"], ["nobody-here", "1:2:3", "-1", "4294967296"]),
    "--group-add": _values("--group-add", ["29", "root"], ["no-group", "-4"]),
    "--entrypoint": ([["--entrypoint=/bin/sh"], ["--entrypoint="]], [["--entrypoint=/no/such"]]),
    "--init": ([["--init"]], [["--init=maybe"]]),
    "--stop-signal": _values("--stop-signal", ["SIGUSR1", "9", "term"], ["SIGNOPE", "0", "99"]),
    "--stop-timeout": _values("--stop-timeout", ["0", "-1", "3"], ["-2", "x"]),
    "--detach": ([["-d"], ["--detach"]], []),
    "--detach-keys": _values("--detach-keys", ["ctrl-x,q"], ["ctrl-", "nokey"]),
    "--sig-proxy": _values("--sig-proxy", ["true", "false"], ["2"]),
    "--name": _values("--name", ["web", "a_b.c-1"], ["-x", "a/b", ""]),
    "--hostname": _values("--hostname", ["box", "a.b.c"], ["-bad", "x" * 65, "a b"]),
    "--rm": ([["--rm"]], [["--rm", "--restart=always"]]),
    "--label": _values("--label", ["k=v", "alone"], ["=v", ""]),
    "--cidfile": _values("--cidfile", ["{work}/cid-{case}"], ["{work}/env", "{work}/none/cid"]),
    "--pull": _values("--pull", ["never", "missing"], ["sometimes"]),
    "--platform": _values("--platform", ["linux/amd64"], ["linux/arm64", "plan9", ""]),
    "--restart": ([["-d", "--restart=no"], ["-d", "--restart=on-failure:1"]], [["--restart=now"], ["--restart=on-failure:x"]]),
    "--timeout": _values("--timeout", ["60s", "1m30s"], ["soon", "-1s"]),
    "--log-driver": ([["-d", "--log-driver=none"], ["--log-driver=json-file"]], [["--log-driver=syslog"]]),
    "--log-opt": ([["-d", "--log-opt=max-size=10k", "--log-opt=max-file=2"]], [["--log-opt=max-size=x"], ["--log-opt=what=1"]]),
    "--health-cmd": ([["--health-cmd=true", "--health-interval=1h"]], []),
    "--health-interval": ([["--health-cmd=true", "--health-interval=1h"]], [["--health-interval=1"], ["--health-interval=-1s"]]),
    "--health-timeout": ([["--health-cmd=true", "--health-timeout=9s", "--health-interval=1h"]], [["--health-timeout=x"]]),
    "--health-retries": ([["--health-cmd=true", "--health-retries=5", "--health-interval=1h"]], [["--health-retries=-1"]]),
    "--health-start-period": ([["--health-cmd=true", "--health-start-period=1h", "--health-interval=1h"]], [["--health-start-period=y"]]),
    "--health-start-interval": ([["--health-cmd=true", "--health-start-interval=1h", "--health-interval=1h"]], [["--health-start-interval=y"]]),
    "--health-on-failure": ([["--health-cmd=true", "--health-on-failure=kill", "--health-interval=1h"]], [["--health-on-failure=cry"]]),
    "--no-healthcheck": ([["--no-healthcheck"]], [["--no-healthcheck", "--health-cmd=true"]]),
    "--volume": (
        [["-v", "{work}/share:/data"], ["-v", "{work}/share/file:/data/file:ro"], ["-v", "named-{case}:/data"], ["-v", "/anonymous"]],
        [["-v", "{work}/share:relative"], ["-v", ""], ["-v", "a:b:c:d"], ["-v", "{work}/share:/data:odd"], ["-v", "{work}/share:/"]],
    ),
    "--mount": (
        [["--mount", "type=bind,source={work}/share,target=/m,readonly"], ["--mount", "type=tmpfs,target=/m,tmpfs-size=1m"],
         ["--mount", "type=volume,source=vol-{case},target=/m"], ["--mount", "type=bind,src={work}/share,dst=/m,bind-propagation=rslave"]],
        [["--mount", "type=bind,target=/m"], ["--mount", "type=odd,target=/m"], ["--mount", "type=bind,source={work}/nothing,target=/m"],
         ["--mount", "target"]],
    ),
    "--tmpfs": _values("--tmpfs", ["/scratch", "/scratch:size=1m,mode=700", "/run/x:ro,noexec"], ["scratch", "/scratch:size=odd"]),
    "--read-only": ([["--read-only"], ["--read-only", "--tmpfs=/tmp"]], [["--read-only=x"]]),
    "--shm-size": _values("--shm-size", ["1m", "0"], ["big", "-1"]),
    "--device": _values("--device", ["/dev/null:/dev/mine", "/dev/zero:/dev/z:r"], ["/dev/no-such", "{work}/env", "/dev/null:/dev/x:q"]),
    "--network": ([["--network=none"], ["--network=host"], ["--network=bridge"], ["--net=named"]], [["--network=nowhere"], ["--network="]]),
    "--network-alias": ([["--network=named", "--network-alias=db"]], [["--network-alias=db"], ["--network=named", "--network-alias=-"]]),
    "--publish": (
        [["-p", "127.0.0.1:18080:80"], ["-p", "18081:53/udp"]],
        [["-p", "x:80"], ["-p", "70000:80"], ["-p", "80", "--network=none"], ["-p", "1.2.3:1:1"], ["-p", "1-3:1-2"]],
    ),
    "--publish-all": ([["-P"]], [["-P=2"]]),
    "--expose": _values("--expose", ["80", "53/udp"], ["x", "80/icmp"]),
    "--add-host": _values("--add-host", ["db:10.1.2.3", "six:fd00::1"], ["db", "db:nowhere", "db:"]),
    "--dns": _values("--dns", ["9.9.9.9"], ["resolver", ""]),
    "--memory": _values("--memory", ["64m", "0", "1g"], ["1k", "x", "-5"]),
    "--memory-swap": ([["-m=64m", "--memory-swap=128m"], ["-m=64m", "--memory-swap=-1"]], [["-m=64m", "--memory-swap=1m"], ["--memory-swap=1g"]]),
    "--memory-reservation": ([["--memory-reservation=32m"]], [["-m=32m", "--memory-reservation=64m"], ["--memory-reservation=x"]]),
    "--cpus": _values("--cpus", ["0.5", "1"], ["x", "-1", "1e9", "0.001"]),
    "--cpu-quota": ([["--cpu-quota=50000"], ["--cpu-quota=-1"]], [["--cpus=1", "--cpu-quota=50000"], ["--cpu-quota=10"]]),
    "--cpu-period": ([["--cpu-period=50000", "--cpu-quota=20000"]], [["--cpu-period=1"], ["--cpus=1", "--cpu-period=50000"]]),
    "--cpu-shares": _values("--cpu-shares", ["512", "0"], ["1", "300000"]),
    "--cpuset-cpus": _values("--cpuset-cpus", ["0"], ["999", "a-b", "3-1"]),
    "--cpuset-mems": _values("--cpuset-mems", ["0"], ["77", "x"]),
    "--blkio-weight": _values("--blkio-weight", ["0"], ["5", "1001"]),
    "--pids-limit": _values("--pids-limit", ["64", "-1", "0"], ["-2", "x"]),
    "--disk": _values("--disk", ["16m", "0"], ["x", "1"]),
    "--cgroup-manager": _values("--cgroup-manager", ["cgroupfs"], ["systemd", "odd"]),
    "--ulimit": _values("--ulimit", ["nofile=64:128", "core=0", "nproc=100"], ["odd=1", "nofile", "nofile=9:8", "nofile=x"]),
    "--oom-score-adj": _values("--oom-score-adj", ["500", "0"], ["1001", "x"]),
    "--cap-add": _values("--cap-add", ["NET_ADMIN", "ALL", "cap_sys_time"], ["FLY"]),
    "--cap-drop": _values("--cap-drop", ["CHOWN", "ALL", "cap_kill"], ["FLY"]),
    "--security-opt": _values(
        "--security-opt",
        ["no-new-privileges", "seccomp=unconfined", "seccomp={work}/profile.json", "no-new-privileges:false"],
        ["seccomp={work}/no-profile", "seccomp={work}/env", "odd", "label=disable", "apparmor=mine"],
    ),
    "--privileged": ([["--privileged"]], [["--privileged=x"]]),
    "--userns": _values("--userns", ["host", "private", "auto"], ["keep"]),
    "--sysctl": _values("--sysctl", ["net.ipv4.ip_forward=1", "kernel.shmmax=1000000"], ["kernel.panic=1", "odd", "net.nothing=1"]),
    "--time-offset": _values("--time-offset", ["86400", "-5"], ["x"]),
    "--trace": ([], [["--trace=x"]]),  # its times are never the same
    "--help": ([], [["--help"], ["--no-such-option"], ["-z"], ["--memor=1m"]]),
}  # fmt: skip

#: Of `minibox exec`.
EXEC: dict[str, Values] = {
    "-i": ([["-i"]], [["--interactive=x"]]),
    "-t": ([["-t"], ["-it"]], [["-t=x"]]),
    "-d": ([["-d"], ["--detach"]], [["-d=x"]]),
    "--detach-keys": _values("--detach-keys", ["ctrl-a"], ["ctrl-!"]),
    "--env": ([["-e", "A=1"], ["-e", "FROM_CALLER"], ["-e", "PATH=/bin"]], [["-e", "=1"]]),
    "--env-file": _values("--env-file", ["{work}/env"], ["{work}/no-env", "{work}/bad-env"]),
    "--privileged": ([["--privileged"]], [["--privileged=x"]]),
    "--user": _values("--user", ["1000", "root", "7:8"], ["nobody-here", "-3"]),
    "--workdir": _values("--workdir", ["/tmp", "/etc"], ["relative", "/no/such"]),
    "--help": ([], [["--help"], ["--rm"], ["-z"]]),
}

#: Keywords of the API.
API: dict[str, tuple[list[object], list[object]]] = {
    "env": ([{"A": "1"}, {"A": "two words", "B": ""}], [{"=": "1"}, {"A": 1}]),
    "cwd": (["/tmp"], ["relative"]),
    "user": ([1000, "1000:7"], ["nobody-here", -1]),
    "network": (["none", "bridge", "host"], ["nowhere"]),
    "ports": ([{"80": "127.0.0.1:18090"}], [{"x": 1}, {"80": 70000}]),
    "hostname": (["box"], ["-bad"]),
    "memory": (["64m", 100_000_000], ["x", 1]),
    "memory_swap": ([-1], [5]),
    "cpus": ([0.5], [-1]),
    "processes": ([64], [-5]),
    "cpu_time": ([60], [-1, "x"]),
    "wall_time": ([60], [-1]),
    "output": (["1m"], ["x", -1]),
    "file_size": (["1m"], ["x"]),
    "disk": (["16m"], [1]),
    "ulimits": ([{"nofile": 64, "core": [0, 0]}], [{"odd": 1}]),
    "mounts": ([["{work}/share:/data:ro"], [["{work}/share", "/d,ata"]]], ["{work}/share:/data", [["a"]], ["{work}/no:/x"]]),
    "tmpfs": ([["/scratch:size=1m"]], ["/scratch", ["scratch"]]),
    "read_only": ([True], []),
    "shm_size": (["1m"], ["x"]),
    "entrypoint": ([""], ["/no/such"]),
    "init": ([True], []),
    "privileged": ([True], []),
    "cap_add": ([["NET_ADMIN"]], [["FLY"], "NET_ADMIN"]),
    "cap_drop": ([["ALL"]], [["FLY"]]),
    "security_opt": ([["no-new-privileges"], ["seccomp=unconfined"]], [["odd"]]),
    "devices": ([["/dev/null:/dev/mine"]], [["/dev/no-such"]]),
    "sysctls": ([{"net.ipv4.ip_forward": "1"}], [{"kernel.panic": "1"}]),
    "userns": (["host", "private"], ["keep"]),
    "add_hosts": ([{"db": "10.1.2.3"}], [{"db": "nowhere"}]),
    "dns": ([["9.9.9.9"]], [["resolver"]]),
    "labels": ([{"k": "v"}], []),
    "name": (["api-{case}"], ["-x"]),
    "pull": (["never"], ["sometimes"]),
    "platform": (["linux/amd64"], ["linux/arm64"]),
    "nothing_like_it": ([], [1]),
}  # fmt: skip
