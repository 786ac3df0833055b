"""The options of `minibox run`: one table for both parsers.

`OPTIONS` has each option once. `parse` is the hot path: it reads an argument list in a few microseconds and imports
nothing. What it doesn't understand it leaves to click, which uses the same table (`cli.commands.run`) and does help,
completion and errors.
"""

from __future__ import annotations

from minibox.base.values import parse_duration_ns, truth
from minibox.engine.spec.options import RunOptions, typed
from minibox.errors import UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST = (1 << 63) - 1


@record
class Option:
    """One option of `minibox run`.

    Attributes:
        field: the field of `RunOptions` that it sets.
        names: its spellings; the main long one comes first.
        kind: flag, text, list (may be repeated), choice, size (bytes), duration (seconds), int or float.
        metavar: the name of its value in ``--help``.
        help: one line for ``--help``, without a full stop.
        group: its heading in ``--help``.
        least, most: the range of a number.
        choices: the values of a ``choice``.
        zero_unsets: 0 is the same as leaving the option out, as in Docker.
        complete: how to complete the value: "" or a key of `cli.completion`, such as file or capability.
    """

    field: str
    names: tuple[str, ...]
    kind: str
    metavar: str
    help: str
    group: str
    least: int = 0
    most: int = MOST
    zero_unsets: bool = False
    choices: tuple[str, ...] = ()
    complete: str = ""


_PROCESS, _CONTAINER, _FILES = "Process", "Container", "File system"
_NETWORK, _LIMITS, _ISOLATION, _LOOK = "Network", "Limits", "Isolation", "Looking inside"
_HEALTH = "Health"

GROUPS = (_PROCESS, _CONTAINER, _HEALTH, _FILES, _NETWORK, _LIMITS, _ISOLATION, _LOOK)

# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("interactive", ("--interactive", "-i"), "flag", "", "Connect stdin to the command", _PROCESS),
    Option("tty", ("--tty", "-t"), "flag", "", "Give the command a terminal", _PROCESS),
    Option("env", ("--env", "-e"), "list", "NAME[=VALUE]",
           "Set a variable; NAME alone passes yours on", _PROCESS),
    Option("env_file", ("--env-file",), "list", "FILE",
           "Read environment variables from a file", _PROCESS, complete="file"),
    Option("workdir", ("--workdir", "-w"), "text", "DIR", "Start the command in this directory", _PROCESS),
    Option("user", ("--user", "-u"), "text", "USER[:GROUP]",
           "Run as this user name or number", _PROCESS),
    Option("group_add", ("--group-add",), "list", "GROUP", "Add a supplementary group", _PROCESS),
    Option("entrypoint", ("--entrypoint",), "text", "COMMAND",
           "Replace the entrypoint; empty: none", _PROCESS),
    Option("init", ("--init",), "flag", "", "Run an init that reaps zombie processes", _PROCESS),
    Option("stop_signal", ("--stop-signal",), "text", "SIGNAL",
           "Signal that stops the container", _PROCESS, complete="signal"),
    Option("stop_timeout_s", ("--stop-timeout",), "int", "SECONDS",
           "Wait this long, then kill; -1: never [10]", _PROCESS, least=-1, most=1 << 31),
    Option("detach", ("--detach", "-d"), "flag", "", "Run in the background and print the id", _CONTAINER),
    Option("detach_keys", ("--detach-keys",), "text", "KEYS",
           "Keys that detach you [ctrl-p,ctrl-q]", _CONTAINER),
    Option("sig_proxy", ("--sig-proxy",), "flag", "", "Pass signals to the command [true]", _CONTAINER),
    Option("name", ("--name",), "text", "NAME", "Name the container", _CONTAINER),
    Option("hostname", ("--hostname", "-h"), "text", "NAME", "Host name of the container", _CONTAINER),
    Option("domainname", ("--domainname",), "text", "NAME", "NIS domain name of the container", _CONTAINER),
    Option("rm", ("--rm",), "flag", "", "Remove the container when it ends", _CONTAINER),
    Option("label", ("--label", "-l"), "list", "KEY[=VALUE]", "Add a label", _CONTAINER),
    Option("label_file", ("--label-file",), "list", "FILE", "Read labels from a file", _CONTAINER, complete="file"),
    Option("annotation", ("--annotation",), "list", "KEY=VALUE", "Add an OCI annotation", _CONTAINER),
    Option("cidfile", ("--cidfile",), "text", "FILE",
           "Write the container's id to a new file", _CONTAINER, complete="file"),
    Option("pull", ("--pull",), "choice", "WHEN",
           "Pull: always, missing, never [missing]", _CONTAINER, choices=("always", "missing", "never")),
    Option("quiet", ("--quiet", "-q"), "flag", "", "Show nothing of a pull", _CONTAINER),
    Option("platform", ("--platform",), "text", "PLATFORM",
           "Use the image for OS/ARCH[/VARIANT]", _CONTAINER),
    Option("restart", ("--restart",), "text", "POLICY",
           "no, on-failure[:N], always, unless-stopped", _CONTAINER),
    Option("timeout_s", ("--timeout",), "duration", "TIME", "Kill it after this time: 5s, 1m30s", _CONTAINER),
    Option("log_driver", ("--log-driver",), "choice", "DRIVER",
           "Where output goes: json-file or none", _CONTAINER, choices=("json-file", "none")),
    Option("log_opt", ("--log-opt",), "list", "KEY=VALUE", "Log option: max-size=10m, max-file=3", _CONTAINER),
    Option("health_cmd", ("--health-cmd",), "text", "COMMAND", "Health check; exit status 0 is healthy", _HEALTH),
    Option("health_interval_s", ("--health-interval",), "duration", "TIME", "Time between checks [30s]", _HEALTH),
    Option("health_timeout_s", ("--health-timeout",), "duration", "TIME",
           "Time after which a check fails [30s]", _HEALTH),
    Option("health_retries", ("--health-retries",), "int", "NUMBER",
           "Failures in a row until unhealthy [3]", _HEALTH),
    Option("health_start_period_s", ("--health-start-period",), "duration", "TIME",
           "Start-up time; failures don't count [0s]", _HEALTH),
    Option("health_start_interval_s", ("--health-start-interval",), "duration", "TIME",
           "Time between checks during start-up [5s]", _HEALTH),
    Option("health_on_failure", ("--health-on-failure",), "choice", "ACTION",
           "If unhealthy: none, kill, restart, stop", _HEALTH, choices=("none", "kill", "restart", "stop")),
    Option("no_healthcheck", ("--no-healthcheck",), "flag", "", "Turn the image's health check off", _HEALTH),
    Option("volume", ("--volume", "-v"), "list", "[SRC:]DST[:ro]",
           "Mount a volume or a path of the host", _FILES, complete="file"),
    Option("mount", ("--mount",), "list", "KEY=VALUE,...", "Mount: type=bind,source=/a,target=/b", _FILES),
    Option("tmpfs", ("--tmpfs",), "list", "DST[:OPTS]",
           "File system in memory: /tmp:size=64m", _FILES),
    Option("read_only", ("--read-only",), "flag", "", "Make the root file system read-only", _FILES),
    Option("shm_size_bytes", ("--shm-size",), "size", "SIZE", "Size of /dev/shm [64m]", _FILES, zero_unsets=True),
    Option("device", ("--device",), "list", "HOST[:DST]",
           "Give the command a host device", _FILES, complete="file"),
    Option("device_cgroup_rule", ("--device-cgroup-rule",), "list", "RULE",
           "Allow devices by number: 'c 10:200 rwm'", _FILES),
    Option("network", ("--network", "--net"), "text", "NAME",
           "none, host, bridge, or a network's name", _NETWORK, complete="network"),
    Option("network_alias", ("--network-alias",), "list", "NAME",
           "Another name on the network", _NETWORK),
    Option("publish", ("--publish", "-p"), "list", "[PORT:]PORT",
           "Publish a container port on this host", _NETWORK),
    Option("publish_all", ("--publish-all", "-P"), "flag", "",
           "Publish all exposed ports on free ports", _NETWORK),
    Option("expose", ("--expose",), "list", "PORT[/PROTOCOL]", "Declare a port that it listens on", _NETWORK),
    Option("add_host", ("--add-host",), "list", "NAME:ADDRESS", "Add a line to /etc/hosts", _NETWORK),
    Option("dns", ("--dns",), "list", "ADDRESS", "Use this name server", _NETWORK),
    Option("dns_search", ("--dns-search",), "list", "DOMAIN", "Look for names in this domain; .: in none", _NETWORK),
    Option("dns_option", ("--dns-option", "--dns-opt"), "list", "OPTION", "An option of resolv.conf(5)", _NETWORK),
    Option("memory_bytes", ("--memory", "-m"), "size", "SIZE", "Limit memory: 512m, 2g", _LIMITS, zero_unsets=True),
    Option("memory_swap_bytes", ("--memory-swap",), "size", "SIZE",
           "Limit memory plus swap; -1: unlimited swap", _LIMITS, least=-1, zero_unsets=True),
    Option("memory_reservation_bytes", ("--memory-reservation",), "size", "SIZE",
           "Keep this much when memory is scarce", _LIMITS, zero_unsets=True),
    Option("memory_swappiness", ("--memory-swappiness",), "int", "NUMBER",
           "How readily it swaps, 0 to 100 (cgroup v1)", _LIMITS, least=-1, most=100),
    Option("kernel_memory_bytes", ("--kernel-memory",), "size", "SIZE",
           "Nothing: no kernel has this limit any more", _LIMITS, zero_unsets=True),
    Option("oom_kill_disable", ("--oom-kill-disable",), "flag", "",
           "Wait for memory, never be killed (v1)", _LIMITS),
    Option("cpus", ("--cpus",), "float", "NUMBER",
           "Limit CPU time: 0.5 is half a CPU", _LIMITS, zero_unsets=True),
    Option("cpu_quota_us", ("--cpu-quota",), "int", "USEC",
           "Limit CPU time in each period", _LIMITS, least=-1, zero_unsets=True),
    Option("cpu_period_us", ("--cpu-period",), "int", "USEC",
           "Length of that period [100000]", _LIMITS, zero_unsets=True),
    Option("cpu_shares", ("--cpu-shares", "-c"), "int", "NUMBER",
           "Weight when CPUs are scarce [1024]", _LIMITS, most=262144, zero_unsets=True),
    Option("cpu_rt_period_us", ("--cpu-rt-period",), "int", "USEC",
           "Period of real-time processes (cgroup v1)", _LIMITS, zero_unsets=True),
    Option("cpu_rt_runtime_us", ("--cpu-rt-runtime",), "int", "USEC",
           "Their CPU time in each period (cgroup v1)", _LIMITS, zero_unsets=True),
    Option("cpuset_cpus", ("--cpuset-cpus",), "text", "LIST", "Use only these CPUs: 0-2,4", _LIMITS),
    Option("cpuset_mems", ("--cpuset-mems",), "text", "LIST", "Use only these memory nodes: 0,1", _LIMITS),
    Option("blkio_weight", ("--blkio-weight",), "int", "NUMBER",
           "Weight when disks are busy, 10 to 1000", _LIMITS, most=1000, zero_unsets=True),
    Option("blkio_weight_device", ("--blkio-weight-device",), "list", "DISK:N",
           "The same for one disk", _LIMITS),
    Option("device_read_bps", ("--device-read-bps",), "list", "DISK:SIZE", "Limit reading, a second: /dev/sda:1mb", _LIMITS),
    Option("device_write_bps", ("--device-write-bps",), "list", "DISK:SIZE", "Limit writing, a second", _LIMITS),
    Option("device_read_iops", ("--device-read-iops",), "list", "DISK:N",
           "Limit reads a second: /dev/sda:1000", _LIMITS),
    Option("device_write_iops", ("--device-write-iops",), "list", "DISK:N", "Limit writes a second", _LIMITS),
    Option("pids_limit", ("--pids-limit",), "int", "NUMBER",
           "Limit processes; -1: no limit", _LIMITS, least=-1, zero_unsets=True),
    Option("disk_bytes", ("--disk",), "size", "SIZE",
           "Limit what it writes; kept in memory", _LIMITS, zero_unsets=True),
    Option("cgroup_manager", ("--cgroup-manager",), "choice", "NAME",
           "Who makes the cgroup: cgroupfs or systemd", _LIMITS, choices=("cgroupfs", "systemd")),
    Option("ulimit", ("--ulimit",), "list", "NAME=VALUE", "Set a soft[:hard] limit: nofile=1024:4096", _LIMITS),
    Option("oom_score_adj", ("--oom-score-adj",), "int", "NUMBER",
           "Out-of-memory preference, -1000 to 1000", _LIMITS, least=-1000, most=1000),
    Option("cap_add", ("--cap-add",), "list", "CAPABILITY",
           "Add a capability: NET_ADMIN, ALL", _ISOLATION, complete="capability"),
    Option("cap_drop", ("--cap-drop",), "list", "CAPABILITY",
           "Drop a capability: CHOWN, ALL", _ISOLATION, complete="capability"),
    Option("security_opt", ("--security-opt",), "list", "OPTION",
           "no-new-privileges, seccomp=FILE|unconfined", _ISOLATION, complete="security"),
    Option("privileged", ("--privileged",), "flag", "",
           "All capabilities and devices, no filters", _ISOLATION),
    Option("userns", ("--userns",), "choice", "MODE",
           "User namespace: host, private, auto [auto]", _ISOLATION, choices=("host", "private", "auto")),
    Option("uts", ("--uts",), "choice", "MODE", "UTS namespace: host", _ISOLATION, choices=("host", "")),
    Option("sysctl", ("--sysctl",), "list", "NAME=VALUE", "Set a kernel parameter in its namespaces", _ISOLATION),
    Option("time_offset_s", ("--time-offset",), "int", "SECONDS", "Run the monotonic clock this far ahead", _ISOLATION),
    Option("trace", ("--trace",), "flag", "", "Show each step of the start and its time", _LOOK),
    Option("svg", ("--svg",), "text", "FILE", "Draw these times as a picture", _LOOK, complete="file"),
    Option("html", ("--html",), "text", "FILE", "Write the steps and their times as a page", _LOOK, complete="file"),
)
# fmt: on

BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in option.names}


def convert(option: Option, text: str) -> Any:
    """Convert ``text`` to a value of ``option``. Raises ValueError, which says what is wrong."""
    kind = option.kind
    if kind in ("text", "list"):
        return text
    if kind == "flag":
        return truth(text)
    if kind == "choice":
        if text not in option.choices:
            raise ValueError("not a valid choice")
        return text
    number: int | float
    if kind == "duration":
        number = int(text) if text.isascii() and text.isdecimal() else parse_duration_ns(text) / 1e9
    elif kind == "size":
        from minibox.base.sizes import parse_size

        try:
            number = -1 if text == "-1" and option.least == -1 else parse_size(text)
        except UsageError:
            raise ValueError("not a size") from None
    else:
        digits = text.removeprefix("-") if kind == "int" else text.replace(".", "", 1)
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19:
            raise ValueError("not a whole number" if kind == "int" else "not a number")
        number = int(text) if kind == "int" else float(text)
    if not option.least <= number <= option.most:
        raise ValueError(
            f"not between {option.least} and {option.most}" if option.most < MOST else f"less than {option.least}"
        )
    return getattr(RunOptions, option.field) if number == 0 and option.zero_unsets else number


def read_words(words: list[str], by_name: dict[str, Option] = BY_NAME) -> tuple[list[tuple[Option, str]], list[str]]:
    """Read options up to the first word that isn't one, by the rules of Docker's parser (pflag).

    They are ``--opt value``, ``--opt=value``, ``-o value``, ``-ovalue``, ``-o=value``, and several flags in one word
    (``-it``). A flag takes a value only after ``=``; without one, its value is "true".

    Returns:
        The options with their values, and the remaining words. These begin with the image, with ``--``, or with an
        option that is unknown or lacks its value.
    """
    read: list[tuple[Option, str]] = []
    count, at = len(words), 0
    while at < count:
        word = words[at]
        if word[:1] != "-" or word == "-" or word == "--":
            break
        found: list[tuple[Option, str]] = []
        name, equals, value = word.partition("=")
        letters = ""
        if name[:2] != "--":
            name, letters = word[:2], word[2:]
        while option := by_name.get(name):
            if letters[:1] == "=":
                equals, value, letters = "=", letters[1:], ""
            elif letters and option.kind != "flag":
                equals, value, letters = "=", letters, ""
            elif name[:2] != "--":
                equals = ""
            if equals:
                found.append((option, value))
            elif option.kind == "flag":
                found.append((option, "true"))
            elif at + 1 < count:
                at += 1
                found.append((option, words[at]))
            else:
                return read, words[at:]
            if not letters:
                break
            name, letters = "-" + letters[0], letters[1:]
        else:
            break
        read += found
        at += 1
    return read, words[at:]


def make_options(values: dict[str, Any], words: list[str]) -> RunOptions:
    """Make `RunOptions` from the options' values by field, and the words from the image on."""
    if "label_file" in values:
        from minibox.cli.label_files import with_labels

        values = with_labels(values)
    fields: Any = {field: tuple(value) if type(value) is list else value for field, value in values.items()}
    return RunOptions(image=words[0], command=tuple(words[1:]), **typed(fields))


def parse_values(words: list[str], by_name: dict[str, Option] = BY_NAME) -> tuple[dict[str, Any], list[str]] | None:
    """Read ``[OPTIONS] WORD...``: return the options' values by field, lists as lists, and the remaining words.

    Returns None if click must read the words instead: for help, completion, or to report an error.
    """
    read, left = read_words(words, by_name)
    if left and left[0] == "--":
        left = left[1:]
    elif left and left[0][:1] == "-" and left[0] != "-":
        return None
    if not left:
        return None
    values: dict[str, Any] = {}
    try:
        for option, text in read:
            value = convert(option, text)
            if option.kind == "list":
                values.setdefault(option.field, []).append(value)
            else:
                values[option.field] = value
    except ValueError:
        return None
    return values, left


def parse(words: list[str]) -> RunOptions | None:
    """Read ``[OPTIONS] IMAGE [COMMAND...]``; None as for `parse_values`."""
    found = parse_values(words)
    return make_options(*found) if found else None
