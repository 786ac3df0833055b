"""The commands and their options: one table, runc's."""

from __future__ import annotations

from minibox.oci_cli.words import Command, Option

GLOBALS = (
    Option(("debug",), "flag", "write what is done to the log, too"),
    Option(("log",), "text", "append the log to this file, not to standard error", ""),
    Option(("log-format",), "text", "text or json", "text"),
    Option(("root",), "text", "directory of the containers' state, on a tmpfs as a rule", ""),
    Option(("criu",), "text", "accepted and not used: there are no checkpoints", ""),
    Option(("systemd-cgroup",), "flag", "let systemd make cgroups: cgroupsPath is slice:prefix:name"),
    Option(("cgroup-manager",), "text", "crun's: cgroupfs, systemd, or disabled for no cgroup of its own", "cgroupfs"),
    Option(("rootless",), "text", "go on without cgroups that can't be made: true, false or auto", "auto"),
    Option(("version", "v"), "flag", "print the version"),
)

_BUNDLE = Option(("bundle", "b"), "text", "the directory with config.json; the current one by default", "")
_CONSOLE = Option(("console-socket",), "text", "a unix socket that is sent the terminal's master end", "")
_PID_FILE = Option(("pid-file",), "text", "write the process id to this file", "")
_PRESERVE = Option(("preserve-fds",), "int", "pass on so many descriptors from 3 (behind $LISTEN_FDS) on", 0)
_PIDFD = Option(("pidfd-socket",), "text", "a unix socket that is sent a pidfd of the process", "")
_DETACH = Option(("detach", "d"), "flag", "leave the process running")
_REGEX = Option(("regex", "r"), "flag", "crun's: to all whose id this regular expression matches")
_CREATE = (
    _BUNDLE,
    Option(("config", "f"), "text", "crun's: this file in the place of the bundle's config.json", ""),
    _CONSOLE,
    _PIDFD,
    _PID_FILE,
    Option(("no-pivot",), "flag", "change the root without pivot_root(2), as for one on a ramdisk"),
    Option(("no-new-keyring",), "flag", "keep the caller's session keyring"),
    _PRESERVE,
)
_BUNDLE_TEXT = """A bundle is a directory with config.json, which says what to run, and a root file system. The container's
id is one that no other container under --root has."""

COMMANDS = (
    Command("checkpoint", "", "", "not supported: there are no checkpoints", most=-1),
    Command("create", "life", "create", "make a container; its process waits for start", options=_CREATE,
            description=_BUNDLE_TEXT),
    Command("delete", "life", "delete", "remove what a container has left",
            options=(Option(("force", "f"), "flag", "kill it first, and succeed when there is none"), _REGEX)),
    Command("events", "measure", "events", "print what a container uses, and when it runs out of memory",
            options=(Option(("interval",), "duration", "print it so often", 5.0),
                     Option(("stats",), "flag", "print it once, and end"))),
    Command("exec", "process", "exec_", "run another process in a container",
            "<container-id> <command> [arguments] || -p process.json <container-id>", (
                _CONSOLE,
                _PIDFD,
                Option(("cwd",), "text", "its working directory", ""),
                Option(("env", "e"), "list", "set a variable: NAME=VALUE"),
                Option(("tty", "t"), "flag", "give it a terminal"),
                Option(("user", "u"), "text", "its user: uid[:gid]", ""),
                Option(("additional-gids", "g"), "list", "a further group"),
                Option(("process", "p"), "text", "a file with an OCI process", ""),
                _DETACH,
                _PID_FILE,
                Option(("process-label",), "text", "its SELinux label", ""),
                Option(("apparmor",), "text", "its AppArmor profile", ""),
                Option(("no-new-privs",), "flag", "no set-uid file gives it more"),
                Option(("cap", "c"), "list", "a further capability"),
                _PRESERVE,
                Option(("cgroup",), "list", "a cgroup below the container's: [controller:]path"),
                Option(("ignore-paused",), "flag", "in a paused container, too: it runs once that goes on"),
            ), 1, -1, mixed=False),
    Command("features", "show", "features", "print what this runtime can do, as JSON", "", least=0, most=-1),
    Command("kill", "life", "kill", "send a signal, SIGTERM by default", "<container-id> [signal]",
            (Option(("all", "a"), "flag", "to all processes of the container"), _REGEX), 1, 2),
    Command("list", "show", "list_", "list the containers", "",
            (Option(("format", "f"), "text", "table or json", "table"),
             Option(("quiet", "q"), "flag", "ids only")), 0, 0),
    Command("pause", "life", "pause", "stop all processes where they are"),
    Command("ps", "show", "ps", "show a container's processes", "<container-id> [ps options]",
            (Option(("format", "f"), "text", "table or json", "table"),), 1, -1, mixed=False),
    Command("restore", "", "", "not supported: there are no checkpoints", most=-1),
    Command("resume", "life", "resume", "let them go on"),
    Command("run", "life", "run", "make a container and run it", description=_BUNDLE_TEXT, options=(
        *_CREATE,
        _DETACH,
        Option(("keep",), "flag", "don't delete the container when it has ended"),
        Option(("no-subreaper",), "flag", "don't be the parent of processes that lost theirs"),
    )),
    Command("spec", "show", "spec", "write a config.json to begin with", "",
            (_BUNDLE, Option(("rootless",), "flag", "for an ordinary user")), 0, 0),
    Command("start", "life", "start", "let the process of a created container run"),
    Command("state", "life", "state", "print a container's state"),
    Command("update", "measure", "update", "change the limits of a container", options=(
        Option(("resources", "r"), "text", "a file with OCI resources, - for standard input: all else is ignored", ""),
        Option(("blkio-weight",), "int", "weight of block I/O, 10 to 1000"),
        Option(("cpu-period",), "text", "period of the CPU limit, in microseconds", ""),
        Option(("cpu-quota",), "text", "CPU time in a period, in microseconds", ""),
        Option(("cpu-burst",), "text", "CPU time that may be saved up, in microseconds", ""),
        Option(("cpu-share",), "text", "weight when CPUs are scarce", ""),
        Option(("cpu-rt-period",), "text", "period of the real-time limit, in microseconds", ""),
        Option(("cpu-rt-runtime",), "text", "real-time CPU time in a period, in microseconds", ""),
        Option(("cpuset-cpus",), "text", "CPUs to use", ""),
        Option(("cpuset-mems",), "text", "memory nodes to use", ""),
        Option(("cpu-idle",), "text", "1: run only when nothing else does", ""),
        Option(("memory",), "text", "limit of memory, in bytes", ""),
        Option(("memory-reservation",), "text", "soft limit of memory, in bytes", ""),
        Option(("memory-swap",), "text", "limit of memory and swap, in bytes; -1: none", ""),
        Option(("kernel-memory",), "text", "accepted and not used, as the kernel has it no more", ""),
        Option(("kernel-memory-tcp",), "text", "accepted and not used", ""),
        Option(("pids-limit",), "int", "limit of processes; -1: none"),
        Option(("l3-cache-schema",), "text", "refused: there is no Intel RDT", ""),
        Option(("mem-bw-schema",), "text", "refused: there is no Intel RDT", ""),
    )),
)  # fmt: skip


def command_of(name: str) -> Command | None:
    """The command of a name."""
    return next((command for command in COMMANDS if command.name == name), None)
