"""The parent's operations and how each is undone, in one table.

A row has the names of the arguments, their kinds (a letter each, as in ``native/plan.h``), what the operation does in
words, its manual page, the equivalent shell command, and the operation that undoes it with the arguments that this
takes ("" for none). `minibox.engine.process.steps` executes the operations, `minibox.engine.process.undo` undoes them.

Pure, and imported by each start: what is only for readers is text, which costs nothing to import.
"""

from __future__ import annotations

from minibox.base.operation import PARENT, Op, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minibox.base.operation import Argument

    Shell = str | Callable[..., str]
    Row = tuple[str, str, str, str, Shell, str]

FIRST_CODE = 1 << 16  # the first code of the parent's operations; the children's are below it


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
    # A pipe without a writer gives the scope a process.
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
    # ---- taken while the plan was compiled
    "hold_ids": ("path container", "ss", "hold the range of ids {path}", "symlink(2)",
                 "ln -s {container} {path}", "release_ids path container"),
    "hold_address": ("state address container", "sss", "hold the address {address}", "symlink(2)",
                     "ln -s {container} {state}/leases/{address}", "leave_network state address container"),
    # ---- published ports
    "reserve_port": ("protocol address first last inside", "ssuuu", "bind the {protocol} port {address}:{first}", "bind(2)",
                     "", ""),
    "publish_begin": ("table bridge address subnet", "ssss", "make the rules of {table}, which forward to {address}",
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
                     "forward {protocol} port {address}:{port} to {to}:{inside}", "nft(8)", _publish_port, ""),
    "publish_end": ("table bridge", "ss", "apply these rules", "nft(8)",
                    "sysctl -w net.ipv4.conf.{bridge}.route_localnet=1", ""),
    "hairpin": ("veth", "s", "let the bridge send packets back to {veth}", "bridge(8)",
                "bridge link set dev {veth} hairpin on", ""),
    "note_ports": ("path", "s", "record the published ports", "", "", "remove_file path"),
    # ---- the cgroup
    "cgroup_parent": ("path", "s", "make the cgroup {path} if it is missing", "cgroups(7)", "mkdir -p {path}", ""),
    "cgroup_mkdir": ("path limit shared", "ssu", "make the cgroup {path}", "cgroups(7)", "mkdir {path}", "cgroup_rmdir path"),
    "cgroup_write": ("path value limit optional other_path other_value", "sssuss", "write {value} to {path}",
                     "cgroups(7)", _cgroup_write, ""),
    "cgroup_copy": ("path source limit optional", "sssu", "copy {source} to {path}", "cpuset(7)",
                    "cat {source} > {path}", ""),
    "cgroup_chown": ("path owner", "su", "give the cgroup {path} to user {owner}", "cgroups(7)",
                     "chown {owner} {path} {path}/cgroup.procs {path}/cgroup.subtree_control {path}/cgroup.threads", ""),
    "device_filter": ("path program", "sb", "attach a device filter of {program} to {path}", "bpf(2)", "", ""),
    "systemd_scope": ("path unit slice limits", "sssv", "ask systemd to make the scope {unit}", "systemd.scope(5)",
                      _systemd_scope, "end_scope path"),
    "systemd_own_scope": ("path unit slice limits", "sssv", "ask systemd to make the scope {unit} with the process",
                          "systemd.scope(5)", "", "end_cgroup path"),
    "systemd_attach": ("unit place path", "sss", "ask systemd to move the process to {path}",
                       "org.freedesktop.systemd1(5)", "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 "
                       "org.freedesktop.systemd1.Manager AttachProcessesToUnit ssau {unit} {place} 1 $INIT", ""),
    # ---- processes
    "make_userns": ("slot uid_map gid_map", "uss", "make a user namespace with the ids {uid_map}", "user_namespaces(7)", "",
                    ""),
    "clone": ("flags cgroups born", "uvu", "clone a process with {flags}", "clone3(2)", "", "kill_cgroup cgroups"),
    "clone_further": ("cgroups born", "vu", "clone a process", "clone3(2)", "", ""),
    "clone_mounter": ("flags", "u", "clone a helper with {flags}", "clone3(2)", "", ""),
    "take_sibling": ("", "", "receive the process that continues", "pidfd_open(2)", "", ""),
    "deny_setgroups": ("", "", "deny the process setgroups(2)", "user_namespaces(7)",
                       'echo deny > "/proc/$INIT/setgroups"', ""),
    "write_uid_map": ("map program", "vz", "map the user ids {map}", "user_namespaces(7)", _id_map("uid"), ""),
    "write_gid_map": ("map program", "vz", "map the group ids {map}", "user_namespaces(7)", _id_map("gid"), ""),
    "oom_score_adj": ("value", "u", "set oom_score_adj to {value}", "proc(5)", "choom --adjust {value} --pid $INIT", ""),
    "send": ("tag", "u", "send {tag}", "unix(7)", "", ""),
    # Only then is it known which one: its undo is added to the list before it is attached.
    "take_root": ("path namespace", "sz", "record which mount is the container's root", "statx(2)", "", ""),
    "await_mounts": ("", "", "wait until its mounts are made", "unix(7)", "", ""),
    "run_hook": ("kind number path argv env timeout_s", "susvvu", "run the {kind} hook {path}", "execve(2)",
                 '{argv} < "$STATE"', ""),
    "send_state": ("status", "s", "send hooks inside the state of a container that is {status}", "unix(7)", "", ""),
    "take_terminal": ("owner", "u", "receive the terminal, and give it to user {owner}", "pty(7)", "", ""),
    "take_listener": ("socket metadata", "sz", "pass the seccomp listener to {socket}", "seccomp_unotify(2)",
                      "", ""),
    # ---- networks
    "move_device": ("device name netns", "ssz", "move the network device {device} to the container, as {name}",
                    "ip-link(8)", "ip link set {device} netns $INIT name {name}", "return_device device name netns"),
    "forward_ipv4": ("", "", "turn on packet forwarding in the kernel", "ip(7)", "sysctl -w net.ipv4.ip_forward=1", ""),
    "bridge_rules": ("bridge subnet", "ss", "start to add the rules of {bridge}: the way out, and the way in",
                     "nft(8)", _bridge_rules, ""),
    "add_bridge": ("bridge gateway prefix", "ssu", "make the bridge {bridge} with the address {gateway} if it is missing", "ip-link(8)",
                   "ip link add {bridge} type bridge || true\nip address replace {gateway}/{prefix} dev {bridge}\n"
                   "ip link set {bridge} up", ""),
    "add_veth": ("veth bridge interface mac", "ssss", "add a pair of links: {veth} on {bridge} and {interface} inside", "veth(4)",
                 "ip link add {veth} master {bridge} up type veth peer name {interface} address {mac} netns $INIT", ""),
    "add_address": ("interface address prefix", "ssu", "give {interface} the address {address}", "ip-address(8)",
                    "nsenter -t $INIT -n ip address add {address}/{prefix} broadcast + dev {interface}", ""),
    "set_up": ("interface", "s", "set {interface} up", "ip-link(8)", "nsenter -t $INIT -n ip link set {interface} up", ""),
    "add_route": ("interface gateway", "ss", "set the default route to {gateway}", "ip-route(8)",
                  "nsenter -t $INIT -n ip route add default via {gateway} dev {interface}", ""),
    "await_rules": ("bridge", "s", "wait until the rules for {bridge} are applied", "nft(8)", "", ""),
    "name_server": ("directory container servers", "ssv", "listen at 127.0.0.11:53 inside for the name server", "network_namespaces(7)",
                    "", ""),
    "user_network": ("tool argv", "sv", "start {tool} to carry its packets", "", "{argv} &", ""),
    # ---- what follows the start
    "listen": ("path", "s", "listen at {path} for `attach`", "unix(7)", "", "remove_file path"),
    # ---- a stop
    "thaw_cgroup": ("cgroups", "v", "thaw {cgroups}", "cgroups(7)", "", ""),
    "signal_first": ("pid signal", "uu", "send signal {signal} to process {pid}", "pidfd_send_signal(2)",
                     "kill -s {signal} {pid}", ""),
    "await_end": ("pid timeout_s", "uz", "wait up to {timeout_s} s for its end", "poll(2)",
                  lambda pid, timeout_s: (
                      ("" if timeout_s == "''" else f"timeout {timeout_s} ") + f"tail --pid={pid} -f /dev/null"), ""),
    "kill_first": ("pid cgroups", "uv", "kill process {pid} if it hasn't ended, and everything in its cgroup",
                   "cgroups(7)", "kill -s KILL {pid}", ""),
    # ---- the end
    "release_ids": ("path container", "ss", "release the range of ids {path}", "unlink(2)", "rm {path}", ""),
    "leave_network": ("state address container", "sss", "release the address {address} and its names", "unlink(2)",
                      "rm {state}/leases/{address}", ""),
    "remove_file": ("path", "s", "remove {path}", "unlink(2)", "rm -f {path}", ""),
    "kill_cgroup": ("cgroups", "v", "kill what is left in {cgroups}", "cgroups(7)", _kill_cgroup, ""),
    "cgroup_rmdir": ("path", "s", "remove the cgroup {path}", "rmdir(2)", "rmdir {path}", ""),
    "end_cgroup": ("path", "s", "kill what is left in {path}; systemd then removes it", "cgroups(7)",
                   "echo 1 > {path}/cgroup.kill", ""),
    "end_scope": ("path", "s", "kill the process that holds the scope {path}", "systemd.scope(5)",
                  "echo 1 > {path}/holder/cgroup.kill", ""),
    "return_device": ("device name netns", "ssz", "move the network device {name} back to the host, as {device}",
                      "ip-link(8)", "nsenter -t $INIT -n ip link set {name} netns 1 name {device}", ""),
    "unmount_root": ("path namespace dev ino mount", "szuuu", "unmount {path} in a shared mount namespace",
                     "umount2(2)", "umount --lazy {path}", ""),
    # ---- a start that stops between its steps: `plan.stops`
    "stop": ("number", "u", "stop before step {number}", "", "", ""),
    "let_go": ("actor waits", "su", "let the {actor} do its next step", "unix(7)", "", ""),
}  # fmt: skip


def signatures() -> dict[str, tuple[int, str]]:
    """Return code and argument kinds of each operation of the parent, by name; for `plan.encode`."""
    return {name: (FIRST_CODE + number, row[1]) for number, (name, row) in enumerate(OPERATIONS.items())}


def named(step: Op) -> dict[str, Argument]:
    """Return the arguments of a parent's step by name."""
    return dict(zip(OPERATIONS[step.name][0].split(), step.args))


#: Of the operations asked for so far: what undoes it, the places of the arguments that this takes, and why.
_undo_of: dict[str, tuple[str, list[int], str]] = {}


def undo_of(step: Op) -> Op | None:
    """Return the step that undoes a parent's step; None if nothing has to be undone."""
    if step.name not in _undo_of:
        taken = OPERATIONS[step.name][0].split()
        words = OPERATIONS[step.name][5].split()
        _undo_of[step.name] = "".join(words[:1]), [taken.index(word) for word in words[1:]], f"undoes {step.name}"
    name, places, why = _undo_of[step.name]
    return Op(name, tuple([step.args[place] for place in places]), why, PARENT) if name else None


def undo_list(ops: Iterable[Op]) -> tuple[Op, ...]:
    """Return the steps that undo the parent's steps, in reverse order."""
    undone = [undo_of(step) for step in ops if step.actor == PARENT]
    return tuple([step for step in reversed(undone) if step])


# ---- constructors ---------------------------------------------------------------------------------


def hold_ids(path: str, container: str) -> Op:
    return parent("hold_ids", path, container, why="no other container's files or processes have these ids")


def hold_address(state: str, address: str, container: str) -> Op:
    return parent("hold_address", state, address, container, why="no other container on the network may have it")


def reserve_port(protocol: str, address: str, first: int, last: int, inside: int) -> Op:
    """Take the first of these ports that is free; ``inside`` is the container's port that it leads to."""
    why = "a port in use is found before anything is made, and from now on no one else can take it"
    return parent("reserve_port", protocol, address, first, last, inside, why=why)


def publish(table: str, bridge: str, address: str, subnet: str, ports: Iterable[tuple[str, str, int, int]]) -> list[Op]:
    """Forward ports to a container, in one transaction.

    Args:
        ports: protocol, the host's address and port (0: the reserved one), and the container's port.
    """
    held = "the kernel removes these rules when the process that holds them ends"
    return [
        parent("publish_begin", table, bridge, address, subnet, why=held),
        *(
            parent("publish_port", table, protocol, outside, port, inside, address, why="this port is published")
            for protocol, outside, port, inside in ports
        ),
        parent("publish_end", table, bridge, why="all at once, so that no packet meets half of them"),
    ]


def hairpin(veth: str) -> Op:
    return parent("hairpin", veth, why="packets to its own published ports come back by the same link")


def note_ports(path: str) -> Op:
    return parent("note_ports", path, why="`ps` and `port` show them")


def make_userns(slot: int, uid_map: str, gid_map: str, why: str) -> Op:
    return parent("make_userns", slot, uid_map, gid_map, why=why)


def clone(flags: int, cgroups: tuple[str, ...], born: bool) -> Op:
    """Make the container's first process.

    Args:
        cgroups: its cgroups, in the format of `Cgroup.labels`.
        born: it is born in its v2 cgroup and enters those of v1 itself; otherwise it is moved there later.
    """
    return parent("clone", flags, cgroups, int(born), why="a process in new namespaces")


def clone_further(cgroups: tuple[str, ...], born: bool) -> Op:
    """Make another process for a container."""
    return parent("clone_further", cgroups, int(born), why="this process is going to join the container")


def clone_mounter(flags: int, why: str) -> Op:
    return parent("clone_mounter", flags, why=why)


def take_sibling() -> Op:
    return parent("take_sibling", why="from here on it is the container's first process")


def systemd_attach(unit: str, place: str, path: str) -> Op:
    why = "this session's cgroup belongs to another user: only systemd may move the process"
    return parent("systemd_attach", unit, place, path, why=why)


def deny_setgroups() -> Op:
    return parent("deny_setgroups", why="otherwise a user could drop a group that denies access")


def write_id_map(kind: str, lines: tuple[str, ...], program: str) -> Op:
    """Map ids.

    Args:
        kind: uid or gid.
        lines: ``INSIDE OUTSIDE COUNT`` each.
        program: a set-uid program that does it for an ordinary user; "" to write the map directly.
    """
    return parent(f"write_{kind}_map", lines, program or None, why="only a process outside may map more than one id")


def oom_score_adj(value: int) -> Op:
    return parent("oom_score_adj", value, why="decides how soon the kernel kills it when memory runs out")


def send(tag: int, why: str) -> Op:
    return parent("send", tag, why=why)


def take_root(path: str, namespace: str) -> Op:
    """``namespace``: the path of the mount namespace to join; "" for the caller's own."""
    return parent(
        "take_root", path, namespace or None, why="recorded before it is attached, so that it can't be forgotten"
    )


def await_mounts() -> Op:
    return parent("await_mounts", why="hooks run when all mounts are made and the host is still in sight")


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
    return parent("send_state", status, why="the outer hooks have run; hooks inside read this state")


def take_terminal(owner: int) -> Op:
    return parent("take_terminal", owner, why="so that the user inside can open it by name, as tmux(1) does")


def take_listener(socket: str, metadata: str | None) -> Op:
    return parent(
        "take_listener", socket, metadata, why="the program there answers the calls that the filter asks about"
    )


def move_device(device: str, name: str, netns: str) -> Op:
    """Move a network device to the namespace with the path ``netns``; "" for that of the container's process."""
    return parent("move_device", device, name, netns or None, why="the container gets this device of the host")


def on_bridge(
    bridge: str, gateway: str, subnet: str, *, veth: str, interface: str, address: str, mac: str, internal: bool
) -> list[Op]:
    """Return the steps that connect a network namespace to a bridge, which is made or repaired first.

    Args:
        internal: the network has no way out.
    """
    prefix = int(subnet.partition("/")[2])
    inside = [] if internal else [parent("add_route", interface, gateway, why="the bridge is the way out")]
    return [
        *([] if internal else [parent("forward_ipv4", why="the host is a router for its containers")]),
        parent("bridge_rules", bridge, subnet, why="in a table of our own, unless it already has them"),
        parent("add_bridge", bridge, gateway, prefix, why="the first container makes it, and it stays"),
        parent(
            "add_veth",
            veth,
            bridge,
            interface,
            mac,
            why="a cable between host and container; it vanishes with either end",
        ),
        parent("add_address", interface, address, prefix, why="leased to this container only"),
        parent("set_up", interface, why="a new link is down"),
        *inside,
        parent("await_rules", bridge, why="they were being added in the meantime"),
    ]


def name_server(directory: str, container: str, servers: tuple[str, ...]) -> Op:
    """Args: ``servers``: who is asked for other names, as `network.name_server.servers` returns them."""
    why = (
        "the others on its networks are found by name; a process beside it keeps these sockets, and the server running"
    )
    return parent("name_server", directory, container, servers, why=why)


def user_network(tool: str, argv: tuple[str, ...]) -> Op:
    """In ``argv``, ``$INIT`` stands for the process's id and ``$PORT_1`` for the first reserved port."""
    why = "an ordinary user can't add a link to the host; this program carries packets in user space, and ends with minibox"
    return parent("user_network", tool, argv, why=why)


def listen(path: str) -> Op:
    return parent("listen", path, why="`attach` reaches the supervisor there")


def stop(pid: int, cgroups: tuple[str, ...], signal: int, timeout_s: str | None) -> tuple[Op, ...]:
    """Return the steps of a stop.

    Args:
        timeout_s: in seconds, as text; None: no limit.
    """
    return (
        parent("thaw_cgroup", cgroups, why="a frozen process can't answer"),
        parent("signal_first", pid, signal, why="the signal that asks it to end"),
        parent("await_end", pid, timeout_s, why="give it time to finish"),
        parent("kill_first", pid, cgroups, why="end what hasn't ended by then"),
    )
