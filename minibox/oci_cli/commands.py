"""The commands and their options, in one table. They are runc's, with a few of crun's."""

from __future__ import annotations

from minibox.oci_cli.words import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci_cli.log import Log

GLOBALS = (
    Option(("debug",), "flag", "log debug messages, too"),
    Option(("log",), "text", "append the log to this file instead of standard error", ""),
    Option(("log-format",), "text", "text or json", "text"),
    Option(("root",), "text", "directory for the state of containers, usually on a tmpfs", ""),
    Option(("criu",), "text", "ignored: checkpoints are not supported", ""),
    Option(("systemd-cgroup",), "flag", "let systemd make cgroups; cgroupsPath is slice:prefix:name"),
    Option(("cgroup-manager",), "text", "like crun: cgroupfs, systemd, or disabled for none", "cgroupfs"),
    Option(("rootless",), "text", "run without cgroups if they can't be made: true, false or auto", "auto"),
    Option(("version", "v"), "flag", "print the version"),
)

_BUNDLE = Option(("bundle", "b"), "text", "directory with config.json; by default the current directory", "")
_CONSOLE = Option(("console-socket",), "text", "send the terminal's master end to this unix socket", "")
_PID_FILE = Option(("pid-file",), "text", "write the process id to this file", "")
_PRESERVE = Option(("preserve-fds",), "int", "pass on this many descriptors, after stdio and $LISTEN_FDS", 0)
_PIDFD = Option(("pidfd-socket",), "text", "send a pidfd of the process to this unix socket", "")
_DETACH = Option(("detach", "d"), "flag", "run the process in the background")
_REGEX = Option(("regex", "r"), "flag", "like crun: for all ids that match this regular expression")
_CREATE = (
    _BUNDLE,
    Option(("config", "f"), "text", "like crun: use this file instead of the bundle's config.json", ""),
    _CONSOLE,
    _PIDFD,
    _PID_FILE,
    Option(("no-pivot",), "flag", "change the root without pivot_root(2), for a root on a ramdisk"),
    Option(("no-new-keyring",), "flag", "keep the caller's session keyring"),
    _PRESERVE,
)
_BUNDLE_TEXT = """A bundle is a directory with a root file system and config.json, which says what to run. The container's
id must be unique under --root."""

COMMANDS = (
    Command("checkpoint", "", "", "not supported", most=-1),
    Command("create", "life", "create", "create a container; its process waits for start", options=_CREATE,
            description=_BUNDLE_TEXT),
    Command("delete", "life", "delete", "remove a stopped container",
            options=(Option(("force", "f"), "flag", "kill it first; succeed if it doesn't exist"), _REGEX)),
    Command("events", "measure", "events", "print resource usage and out-of-memory events of a container",
            options=(Option(("interval",), "duration", "time between two reports", 5.0),
                     Option(("stats",), "flag", "print the usage once and exit"))),
    Command("exec", "exec", "exec_", "run another process in a container",
            "<container-id> <command> [arguments] || -p process.json <container-id>", (
                _CONSOLE,
                _PIDFD,
                Option(("cwd",), "text", "working directory", ""),
                Option(("env", "e"), "list", "set an environment variable: NAME=VALUE"),
                Option(("tty", "t"), "flag", "give the process a terminal"),
                Option(("user", "u"), "text", "user: uid[:gid]", ""),
                Option(("additional-gids", "g"), "list", "add a supplementary group"),
                Option(("process", "p"), "text", "read an OCI process from this file", ""),
                _DETACH,
                _PID_FILE,
                Option(("process-label",), "text", "SELinux label", ""),
                Option(("apparmor",), "text", "AppArmor profile", ""),
                Option(("no-new-privs",), "flag", "set no_new_privs: set-user-ID files grant no privileges"),
                Option(("cap", "c"), "list", "add a capability"),
                _PRESERVE,
                Option(("cgroup",), "list", "use a cgroup below the container's: [controller:]path"),
                Option(("ignore-paused",), "flag", "allow a paused container; the process runs after resume"),
            ), 1, -1, mixed=False),
    Command("features", "show", "features", "print the features of this runtime as JSON", "", least=0, most=-1),
    Command("kill", "life", "kill", "send a signal to a container, SIGTERM by default", "<container-id> [signal]",
            (Option(("all", "a"), "flag", "send it to all processes of the container"), _REGEX), 1, 2),
    Command("list", "show", "list_", "list containers", "",
            (Option(("format", "f"), "text", "table or json", "table"),
             Option(("quiet", "q"), "flag", "print only ids")), 0, 0),
    Command("pause", "life", "pause", "pause all processes of a container"),
    Command("ps", "show", "ps", "show a container's processes", "<container-id> [ps options]",
            (Option(("format", "f"), "text", "table or json", "table"),), 1, -1, mixed=False),
    Command("restore", "", "", "not supported", most=-1),
    Command("resume", "life", "resume", "resume all processes of a paused container"),
    Command("run", "life", "run", "create and start a container", description=_BUNDLE_TEXT, options=(
        *_CREATE,
        _DETACH,
        Option(("keep",), "flag", "don't delete the container when it has ended"),
        Option(("no-subreaper",), "flag", "don't adopt orphaned processes of the container"),
    )),
    Command("spec", "show", "spec", "write a template config.json", "",
            (_BUNDLE, Option(("rootless",), "flag", "for an ordinary user")), 0, 0),
    Command("start", "life", "start", "start the process of a created container"),
    Command("state", "life", "state", "print a container's state"),
    Command("update", "measure", "update", "change the limits of a container", options=(
        Option(("resources", "r"), "text", "file with OCI resources, - for standard input; the other options are ignored", ""),
        Option(("blkio-weight",), "int", "weight of block I/O, 10 to 1000"),
        Option(("cpu-period",), "text", "period of the CPU limit, in microseconds", ""),
        Option(("cpu-quota",), "text", "CPU time in a period, in microseconds", ""),
        Option(("cpu-burst",), "text", "unused CPU time that may accumulate, in microseconds", ""),
        Option(("cpu-share",), "text", "weight when CPUs are scarce", ""),
        Option(("cpu-rt-period",), "text", "period of the real-time limit, in microseconds", ""),
        Option(("cpu-rt-runtime",), "text", "real-time CPU time in a period, in microseconds", ""),
        Option(("cpuset-cpus",), "text", "CPUs to use", ""),
        Option(("cpuset-mems",), "text", "memory nodes to use", ""),
        Option(("cpu-idle",), "text", "1: run only when nothing else wants the CPU", ""),
        Option(("memory",), "text", "memory limit, in bytes", ""),
        Option(("memory-reservation",), "text", "soft memory limit, in bytes", ""),
        Option(("memory-swap",), "text", "limit of memory and swap together, in bytes; -1: no limit", ""),
        Option(("kernel-memory",), "text", "ignored: the kernel no longer has this limit", ""),
        Option(("kernel-memory-tcp",), "text", "ignored", ""),
        Option(("pids-limit",), "int", "limit of processes; -1: no limit"),
        Option(("l3-cache-schema",), "text", "not supported: Intel RDT", ""),
        Option(("mem-bw-schema",), "text", "not supported: Intel RDT", ""),
    )),
)  # fmt: skip


def command_of(name: str) -> Command | None:
    """Return the command of that name, or None."""
    return next((command for command in COMMANDS if command.name == name), None)


class Settings:
    """The global options.

    Attributes:
        root: directory for the state of containers.
        rootless: run without cgroups if they can't be made; None means yes unless this is the host's root.
        systemd_cgroup: let systemd make the cgroup.
        cgroups: whether to make a cgroup.
    """

    def __init__(self, given: dict[str, Any], root: str, rootless: bool | None) -> None:
        self._given, self.root, self.rootless = given, root, rootless
        self.systemd_cgroup = bool(given["systemd-cgroup"]) or given["cgroup-manager"] == "systemd"
        self.cgroups = given["cgroup-manager"] != "disabled"

    @property
    def log(self) -> Log:
        """The log of this command."""
        return log_of(self._given)


def log_of(given: dict[str, Any]) -> Log:
    """Return the log that the global options choose."""
    from minibox.oci_cli.log import Log

    return Log(given.get("log", "").removeprefix("file:"), given.get("log-format", ""), debug=bool(given.get("debug")))
