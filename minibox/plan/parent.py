"""The operations of the parent's: what each is, in one table; and what undoes it.

A row has the names of the arguments, their kinds (a letter each, as in ``native/plan.h``), what is done in words, the
manual page, the command of a shell that does the same, and the operation that undoes it with those of the arguments
that it takes; "" for none. `minibox.engine.process.steps` executes them, `minibox.engine.process.undo` what undoes them.

Pure, and on the way of each start: what is only for readers is text, which costs nothing to import.
"""

from __future__ import annotations

from minibox.base.operation import PARENT, Op, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minibox.base.operation import Argument

    Shell = str | Callable[..., str]
    Row = tuple[str, str, str, str, Shell, str]

FIRST_CODE = 1 << 16  # of an encoded operation of the parent's; those of the children's are below


def _cgroup_write(path: str, value: str, limit: str, optional: str, other_path: str, other_value: str) -> str:
    other = "" if other_path == "''" else f" || echo {other_value} > {other_path}"
    return f"echo {value} > {path}{other}" + (" || true" if optional != "0" else "")


def _id_map(kind: str) -> Callable[..., str]:
    def shell(lines: str, program: str) -> str:
        if program != "''":
            return f'{program} "$INIT" {_words(lines)}'
        text = f"printf '%s\\n' {_one_line(lines)}" if "\n" in lines else f"echo {_words(lines)}"
        return f'{text} > "/proc/$INIT/{kind}_map"'

    return shell


def _one_line(words: str) -> str:
    return words.replace("\n", " ")


def _words(lines: str) -> str:
    return _one_line(lines.replace("'", ""))


def _systemd_scope(directory: str, unit: str, slice_: str, told: str) -> str:
    from minibox.linux.cgroup.creation import pairs
    from minibox.linux.cgroup.scope import properties

    limits = "".join(f" -p {each.text}" for each in properties(pairs(told.replace("'", "").split("\n"))))
    # A pipe without an end, so that the scope has a process.
    options = f"--unit={unit} --slice={slice_} -p Delegate=yes{limits}"
    return f"sleep infinity | systemd-run --scope {options} cat & mkdir -p {directory}/holder"


def _bridge_rules(bridge: str, subnet: str) -> str:
    way = f"internal '{{ {bridge} }}'" if bridge.startswith("mbi") else f"subnets '{{ {subnet} }}'"
    elements = (way, f"bridges '{{ {bridge} }}'", f"same '{{ {bridge} . {bridge} }}'")
    return "\n".join(f"nft add element inet minibox {each}" for each in elements)


def _publish_port(table: str, protocol: str, address: str, port: str, inside: str, to: str) -> str:
    match = "fib daddr type local" if address == "0.0.0.0" else f"ip daddr {address}"
    at = "$PORT" if port == "0" else port
    return f'nft add rule ip {table} published "{match} {protocol} dport {at} dnat to {to}:{inside}"'


def _kill_cgroup(cgroups: str) -> str:
    found = (each.partition(":") for each in cgroups.replace("'", "").split("\n"))
    by_directory = {path: controller for controller, _, path in found}
    return "\n".join(
        f"for p in $(cat {path}/cgroup.procs); do kill -9 $p; done" if controller else f"echo 1 > {path}/cgroup.kill"
        for path, controller in by_directory.items()
    )


# name: (arguments, kinds, words, manual page, shell, undo)
OPERATIONS: dict[str, Row] = {
    # ---- what was taken while the plan was compiled
    "hold_ids": ("path container", "ss", "hold the range of ids {path}", "symlink(2)",
                 "ln -s {container} {path}", "release_ids path container"),
    "hold_address": ("state address container", "sss", "hold the address {address}", "symlink(2)",
                     "ln -s {container} {state}/leases/{address}", "leave_network state address container"),
    # ---- published ports
    "reserve_port": ("protocol address first last inside", "ssuuu", "bind the port {address}:{first} of {protocol}", "bind(2)",
                     "", ""),
    "publish_begin": ("table bridge address subnet", "ssss", "make the rules of {table}, which lead to {address}",
                      "nft(8)", "nft add table ip {table}\nnft add chain ip {table} published\n"
                      "nft add chain ip {table} guard '{{ type filter hook prerouting priority raw; }}'\n"
                      "nft add chain ip {table} prerouting '{{ type nat hook prerouting priority dstnat; }}'\n"
                      "nft add chain ip {table} output '{{ type nat hook output priority dstnat; }}'\n"
                      "nft add chain ip {table} postrouting '{{ type nat hook postrouting priority srcnat; }}'\n"
                      "nft add rule ip {table} guard iif != lo ip daddr 127.0.0.0/8 drop\n"
                      "nft add rule ip {table} prerouting fib daddr type local jump published\n"
                      "nft add rule ip {table} output fib daddr type local jump published\n"
                      "nft add rule ip {table} postrouting ip saddr 127.0.0.0/8 ip daddr {address} ct status dnat masquerade\n"
                      "nft add rule ip {table} postrouting ip saddr {subnet} ip daddr {address} ct status dnat masquerade",
                      ""),
    "publish_port": ("table protocol address port inside to", "sssuus",
                     "lead {address}:{port} of {protocol} to {to}:{inside}", "nft(8)", _publish_port, ""),
    "publish_end": ("table bridge", "ss", "put these rules into force", "nft(8)",
                    "sysctl -w net.ipv4.conf.{bridge}.route_localnet=1", ""),
    "hairpin": ("veth", "s", "have the bridge send to {veth} what comes from it", "bridge(8)",
                "bridge link set dev {veth} hairpin on", ""),
    "note_ports": ("path", "s", "write down which ports are published", "", "", "remove_file path"),
    # ---- the cgroup
    "cgroup_parent": ("path", "s", "make the cgroup {path}, unless it is there", "cgroups(7)", "mkdir -p {path}", ""),
    "cgroup_mkdir": ("path limit shared", "ssu", "make the cgroup {path}", "cgroups(7)", "mkdir {path}", "cgroup_rmdir path"),
    "cgroup_write": ("path value limit optional other_path other_value", "sssuss", "write {value} to {path}",
                     "cgroups(7)", _cgroup_write, ""),
    "cgroup_copy": ("path source limit optional", "sssu", "copy {source} to {path}", "cpuset(7)",
                    "cat {source} > {path}", ""),
    "cgroup_chown": ("path owner", "su", "give the cgroup {path} to user {owner}", "cgroups(7)",
                     "chown {owner} {path} {path}/cgroup.procs {path}/cgroup.subtree_control {path}/cgroup.threads", ""),
    "device_filter": ("path program", "sb", "attach a filter of devices to {path}, {program}", "bpf(2)", "", ""),
    "systemd_scope": ("path unit slice limits", "sssv", "have systemd make the scope {unit}", "systemd.scope(5)",
                      _systemd_scope, "end_scope path"),
    "systemd_own_scope": ("path unit slice limits", "sssv", "have systemd make the scope {unit} of the process",
                          "systemd.scope(5)", "", "end_cgroup path"),
    "systemd_attach": ("unit place path", "sss", "have systemd move the process to {path}",
                       "org.freedesktop.systemd1(5)", "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 "
                       "org.freedesktop.systemd1.Manager AttachProcessesToUnit ssau {unit} {place} 1 $INIT", ""),
    # ---- processes
    "make_userns": ("slot uid_map gid_map", "uss", "make a user namespace of ids {uid_map}", "user_namespaces(7)", "",
                    ""),
    "clone": ("flags cgroups born", "uvu", "clone a process with {flags}", "clone3(2)", "", "kill_cgroup cgroups"),
    "clone_further": ("cgroups born", "vu", "clone a process", "clone3(2)", "", ""),
    "clone_mounter": ("flags", "u", "clone a helper with {flags}", "clone3(2)", "", ""),
    "take_sibling": ("", "", "receive the process that goes on", "pidfd_open(2)", "", ""),
    "deny_setgroups": ("", "", "forbid the process to change its groups", "user_namespaces(7)",
                       'echo deny > "/proc/$INIT/setgroups"', ""),
    "write_uid_map": ("map program", "vz", "map the user ids {map}", "user_namespaces(7)", _id_map("uid"), ""),
    "write_gid_map": ("map program", "vz", "map the group ids {map}", "user_namespaces(7)", _id_map("gid"), ""),
    "oom_score_adj": ("value", "u", "set oom_score_adj to {value}", "proc(5)", "choom --adjust {value} --pid $INIT", ""),
    "send": ("tag", "u", "send {tag}", "unix(7)", "", ""),
    # Which one it is, it is only known then: what undoes it is added to the list before it is attached.
    "take_root": ("path namespace", "sz", "write down which mount is the container's root", "statx(2)", "", ""),
    "await_mounts": ("", "", "wait until its mounts are made", "unix(7)", "", ""),
    "run_hook": ("kind number path argv env timeout_s", "susvvu", "run the {kind} hook {path}", "execve(2)",
                 '{argv} < "$STATE"', ""),
    "send_state": ("status", "s", "send what hooks inside are told of a container that is {status}", "unix(7)", "", ""),
    "take_terminal": ("owner", "u", "receive the terminal, and give it to user {owner}", "pty(7)", "", ""),
    "take_listener": ("socket metadata", "sz", "hand the listener of system calls on to {socket}", "seccomp_unotify(2)",
                      "", ""),
    # ---- networks
    "move_device": ("device name netns", "ssz", "move the network device {device} to the container, as {name}",
                    "ip-link(8)", "ip link set {device} netns $INIT name {name}", "return_device device name netns"),
    "forward_ipv4": ("", "", "have the kernel forward packets", "ip(7)", "sysctl -w net.ipv4.ip_forward=1", ""),
    "bridge_rules": ("bridge subnet", "ss", "begin with the rules of {bridge}: its way out, and who may reach it",
                     "nft(8)", _bridge_rules, ""),
    "add_bridge": ("bridge gateway prefix", "ssu", "have the bridge {bridge} with the address {gateway}", "ip-link(8)",
                   "ip link add {bridge} type bridge || true\nip address replace {gateway}/{prefix} dev {bridge}\n"
                   "ip link set {bridge} up", ""),
    "add_veth": ("veth bridge interface mac", "ssss", "add a pair of links: {veth} on {bridge}, {interface} inside", "veth(4)",
                 "ip link add {veth} master {bridge} up type veth peer name {interface} address {mac} netns $INIT", ""),
    "add_address": ("interface address prefix", "ssu", "give {interface} the address {address}", "ip-address(8)",
                    "nsenter -t $INIT -n ip address add {address}/{prefix} broadcast + dev {interface}", ""),
    "set_up": ("interface", "s", "set {interface} up", "ip-link(8)", "nsenter -t $INIT -n ip link set {interface} up", ""),
    "add_route": ("interface gateway", "ss", "lead what goes elsewhere over {gateway}", "ip-route(8)",
                  "nsenter -t $INIT -n ip route add default via {gateway} dev {interface}", ""),
    "await_rules": ("bridge", "s", "wait until the rules for {bridge} are in force", "nft(8)", "", ""),
    "user_network": ("tool argv", "sv", "have {tool} carry its packets", "", "{argv} &", ""),
    # ---- what follows the start
    "listen": ("path", "s", "listen at {path} for who attaches", "unix(7)", "", "remove_file path"),
    # ---- a stop
    "thaw_cgroup": ("cgroups", "v", "let what is frozen in {cgroups} go on", "cgroups(7)", "", ""),
    "signal_first": ("pid signal", "uu", "send signal {signal} to process {pid}", "pidfd_send_signal(2)",
                     "kill -s {signal} {pid}", ""),
    "await_end": ("pid timeout_s", "uz", "wait for its end, {timeout_s} s at most", "poll(2)",
                  lambda pid, timeout_s: (
                      ("" if timeout_s == "''" else f"timeout {timeout_s} ") + f"tail --pid={pid} -f /dev/null"), ""),
    "kill_first": ("pid cgroups", "uv", "kill process {pid} if it hasn't ended, and all that is in its cgroup",
                   "cgroups(7)", "kill -s KILL {pid}", ""),
    # ---- the end
    "release_ids": ("path container", "ss", "give back the range of ids {path}", "unlink(2)", "rm {path}", ""),
    "leave_network": ("state address container", "sss", "give back the address {address}, and its names", "unlink(2)",
                      "rm {state}/leases/{address}", ""),
    "remove_file": ("path", "s", "remove {path}", "unlink(2)", "rm -f {path}", ""),
    "kill_cgroup": ("cgroups", "v", "end what is left in {cgroups}", "cgroups(7)", _kill_cgroup, ""),
    "cgroup_rmdir": ("path", "s", "remove the cgroup {path}", "rmdir(2)", "rmdir {path}", ""),
    "end_cgroup": ("path", "s", "end what is left in {path}, which systemd removes then", "cgroups(7)",
                   "echo 1 > {path}/cgroup.kill", ""),
    "end_scope": ("path", "s", "end the process that holds the scope {path}", "systemd.scope(5)",
                  "echo 1 > {path}/holder/cgroup.kill", ""),
    "return_device": ("device name netns", "ssz", "move the network device {name} back to the host, as {device}",
                      "ip-link(8)", "nsenter -t $INIT -n ip link set {name} netns 1 name {device}", ""),
    "unmount_root": ("path namespace dev ino mount", "szuuu", "unmount {path}, where others are in its mount namespace",
                     "umount2(2)", "umount --lazy {path}", ""),
}  # fmt: skip


def signatures() -> dict[str, tuple[int, str]]:
    """Code and argument kinds of every operation of the parent's, by name; for `plan.encode`."""
    return {name: (FIRST_CODE + number, row[1]) for number, (name, row) in enumerate(OPERATIONS.items())}


def named(step: Op) -> dict[str, Argument]:
    """The arguments of a step of the parent's by name."""
    return dict(zip(OPERATIONS[step.name][0].split(), step.args))


def undo_of(step: Op) -> Op | None:
    """What undoes a step of the parent's; None where nothing has to be."""
    undo = OPERATIONS[step.name][5]
    if not undo:
        return None
    name, *words = undo.split()
    given = named(step)
    return Op(name, tuple(given[word] for word in words), f"undoes {step.name}", PARENT)


def undo_list(ops: Iterable[Op]) -> tuple[Op, ...]:
    """What undoes the parent's steps, the last first."""
    return tuple(undo for step in reversed(tuple(ops)) if step.actor == PARENT and (undo := undo_of(step)))


# ---- constructors ---------------------------------------------------------------------------------


def hold_ids(path: str, container: str) -> Op:
    return parent("hold_ids", path, container, why="no other container's files or processes have these owners")


def hold_address(state: str, address: str, container: str) -> Op:
    return parent("hold_address", state, address, container, why="nobody else on the network has it")


def reserve_port(protocol: str, address: str, first: int, last: int, inside: int) -> Op:
    """Take the first of these ports that is free; ``inside``: the container's, to which it is to lead."""
    why = "one that is taken is known before anything is made, and from now on nobody else gets it"
    return parent("reserve_port", protocol, address, first, last, inside, why=why)


def publish(table: str, bridge: str, address: str, subnet: str, ports: Iterable[tuple[str, str, int, int]]) -> list[Op]:
    """Lead ports to a container, in one transaction.

    Args:
        ports: protocol, address and port of the host's (0: the one that was reserved), and that of the container's.
    """
    held = "rules that the kernel forgets when their holder goes, whatever ends it"
    return [
        parent("publish_begin", table, bridge, address, subnet, why=held),
        *(
            parent("publish_port", table, protocol, outside, port, inside, address, why="this port is published")
            for protocol, outside, port, inside in ports
        ),
        parent("publish_end", table, bridge, why="all at once: nobody finds half of them"),
    ]


def hairpin(veth: str) -> Op:
    return parent("hairpin", veth, why="what it sends to a published port of its own comes back by the same link")


def note_ports(path: str) -> Op:
    return parent("note_ports", path, why="`ps` and `port` tell of them")


def make_userns(slot: int, uid_map: str, gid_map: str, why: str) -> Op:
    return parent("make_userns", slot, uid_map, gid_map, why=why)


def clone(flags: int, cgroups: tuple[str, ...], born: bool) -> Op:
    """The container's first process.

    Args:
        cgroups: that it is going to be in, as `Cgroup.labels`.
        born: in v2's from its first moment, and it enters those of v1 itself; else it is moved there later.
    """
    return parent("clone", flags, cgroups, int(born), why="a process in namespaces of its own")


def clone_further(cgroups: tuple[str, ...], born: bool) -> Op:
    """A further process of a container."""
    return parent("clone_further", cgroups, int(born), why="a process that is going to join the container")


def clone_mounter(flags: int, why: str) -> Op:
    return parent("clone_mounter", flags, why=why)


def take_sibling() -> Op:
    return parent("take_sibling", why="from here on, that is the container's first process")


def systemd_attach(unit: str, place: str, path: str) -> Op:
    why = "this session is somebody else's cgroup: only systemd may move it"
    return parent("systemd_attach", unit, place, path, why=why)


def deny_setgroups() -> Op:
    return parent("deny_setgroups", why="else a user could get rid of a group that forbids him something")


def write_id_map(kind: str, lines: tuple[str, ...], program: str) -> Op:
    """Map ids.

    Args:
        kind: uid or gid.
        lines: ``INSIDE OUTSIDE COUNT`` each.
        program: a set-uid program that does it for an ordinary user; "" for by ourselves.
    """
    return parent(f"write_{kind}_map", lines, program or None, why="only a process outside may map more than one id")


def oom_score_adj(value: int) -> Op:
    return parent("oom_score_adj", value, why="how soon the kernel kills it when memory runs out")


def send(tag: int, why: str) -> Op:
    return parent("send", tag, why=why)


def take_root(path: str, namespace: str) -> Op:
    """``namespace``: path of the mount namespace that is joined, "" for the caller's own."""
    return parent(
        "take_root", path, namespace or None, why="written down before it is there, so that it can't be forgotten"
    )


def await_mounts() -> Op:
    return parent("await_mounts", why="hooks find all mounts, and nothing of the host is gone yet")


def run_hook(
    kind: str, number: int, path: str, argv: tuple[str, ...], env: tuple[str, ...] | None, timeout_s: int
) -> Op:
    """Run a hook.

    Args:
        env: None for our own environment.
        timeout_s: -1 for none.
    """
    return parent("run_hook", kind, number, path, argv, env, timeout_s, why="it may still add to the container")


def send_state(status: str) -> Op:
    return parent("send_state", status, why="the hooks outside have run; those inside are told this")


def take_terminal(owner: int) -> Op:
    return parent("take_terminal", owner, why="the user inside may open it by name, as tmux(1) does")


def take_listener(socket: str, metadata: str | None) -> Op:
    return parent(
        "take_listener", socket, metadata, why="who listens there answers for the calls that the filter asks of"
    )


def move_device(device: str, name: str, netns: str) -> Op:
    """Move a network device; ``netns``: the path of a network namespace, "" for that of the container's process."""
    return parent("move_device", device, name, netns or None, why="devices of the host's become the container's")


def on_bridge(
    bridge: str, gateway: str, subnet: str, *, veth: str, interface: str, address: str, mac: str, internal: bool
) -> list[Op]:
    """The steps that connect a network namespace to a bridge, which is made or mended before.

    Args:
        internal: there is no way out.
    """
    prefix = int(subnet.partition("/")[2])
    inside = [] if internal else [parent("add_route", interface, gateway, why="the bridge is the way out")]
    return [
        *([] if internal else [parent("forward_ipv4", why="a host that is a router for its containers")]),
        parent("bridge_rules", bridge, subnet, why="in a table of our own; nothing happens where it is as we left it"),
        parent("add_bridge", bridge, gateway, prefix, why="made by the first container; it stays"),
        parent(
            "add_veth", veth, bridge, interface, mac, why="a cable between host and container; it goes with either end"
        ),
        parent("add_address", interface, address, prefix, why="leased to this container alone"),
        parent("set_up", interface, why="a new link is down"),
        *inside,
        parent("await_rules", bridge, why="they were put there meanwhile"),
    ]


def user_network(tool: str, argv: tuple[str, ...]) -> Op:
    """``$INIT`` in a word of ``argv`` stands for the process's id, ``$PORT_1`` for the first port that was reserved."""
    why = "an ordinary user can't add a link to the host; this program carries packets in user space, and dies with us"
    return parent("user_network", tool, argv, why=why)


def listen(path: str) -> Op:
    return parent("listen", path, why="`attach` finds its supervisor there")


def stop(pid: int, cgroups: tuple[str, ...], signal: int, timeout_s: str | None) -> tuple[Op, ...]:
    """The steps of a stop.

    Args:
        timeout_s: in seconds, as a number in words; None: without an end.
    """
    return (
        parent("thaw_cgroup", cgroups, why="a frozen process can't answer"),
        parent("signal_first", pid, signal, why="the signal by which it wants to be asked to end"),
        parent("await_end", pid, timeout_s, why="it may have something to finish"),
        parent("kill_first", pid, cgroups, why="whoever doesn't end by then is made to"),
    )
