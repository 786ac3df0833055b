"""What a start needs to know in addition to the Spec."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.base.operation import Op


@record
class Start:
    """The facts and choices that a Plan is compiled from, and that aren't in the Spec.

    Two modules fill it in, because they decide by different things: `engine.spec.compile` by the options of a run, its
    image and the ids that it took, `engine.oci.create` by somebody else's config.json and the options of a runtime. Of
    these fields only three are found in both, each in its own way; `plan.compiler.compile_plan` is the one way on.

    Attributes:
        id_mapped: files keep the image's ids on disk and are shown with the container's. This needs the host's root and
            Linux 5.19, and a mounter, since the container's own processes can't do it.
        setgroups: the container may change its supplementary groups, since a range of ids is mapped.
        seccomp: the compiled filter, an array of ``struct sock_filter``.
        seccomp_flags: the flags of seccomp(2).
        denies_keys: the filter denies all system calls on keys, so the container needs no keyring of its own.
        listener: the socket to send the filter's listener to, and its metadata; None for none.
        held: the steps that record what was taken while the plan was compiled.
        cgroup_steps: the steps that make its cgroup, `linux.cgroup.steps`.
        cgroups: its cgroups, in the format of `linux.cgroup.group.Cgroup.labels`.
        cgroup_joins: the steps that move it there after its birth; none if it is born in them.
        cgroup_mounts: what /sys/fs/cgroup shows: ``("", "cgroup2", "")`` or an entry for each v1 hierarchy.
        terminal: rows and columns of the terminal; None for plain streams.
        network: the steps that connect its network namespace.
        ports: the steps that reserve published ports and the socket of its supervisor.
        published: the steps that forward published ports to the container.
        detached: the container outlives the process that starts it.
        gate: it waits before the exec until `engine.process.gate.open_gate` opens the gate; `start` of an OCI runtime.
        ordinary: started by an ordinary user, who can map only the own id without help.
        rootless: started by an ordinary user, who has rights over joined namespaces only within their user namespace.
        keyring: it gets a session keyring of its own.
        pivot: change the root with pivot_root(2), which isn't possible if / is the initramfs.
        kept_fds: the number of the caller's descriptors, from 3 on, that stay open in the container.
    """

    id_mapped: bool = False
    setgroups: bool = True
    seccomp: bytes = b""
    seccomp_flags: int = 0
    denies_keys: bool = False
    listener: tuple[str, str | None] | None = None
    held: tuple[Op, ...] = ()
    cgroup_steps: tuple[Op, ...] = ()
    cgroups: tuple[str, ...] = ()
    cgroup_joins: tuple[Op, ...] = ()
    cgroup_mounts: tuple[tuple[str, str, str], ...] = ()
    terminal: tuple[int, int] | None = None
    network: tuple[Op, ...] = ()
    ports: tuple[Op, ...] = ()
    published: tuple[Op, ...] = ()
    detached: bool = False
    gate: bool = False
    ordinary: bool = False
    rootless: bool = False
    keyring: bool = True
    pivot: bool = True
    kept_fds: int = 0
