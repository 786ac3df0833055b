"""What a start needs to know beside the Spec."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.base.operation import Op


@record
class Start:
    """The facts and choices from which a Plan is compiled, and which the Spec doesn't say.

    Attributes:
        id_mapped: files keep the image's ids on disk and are shown with the container's; needs the
            host's root and Linux 5.19. A mounter does it: the container's own processes can't.
        setgroups: the container may change its supplementary groups (a range of ids was mapped).
        seccomp: the compiled filter, an array of ``struct sock_filter``.
        seccomp_flags: of seccomp(2).
        denies_keys: the filter lets no system call on keys pass; so it may go without a keyring of its own.
        listener: the socket that gets the listener of the filter, and what it is told with it; None for none.
        held: what was taken for it while the plan was compiled, as steps that say so.
        cgroup_steps: the steps that make its cgroup, `linux.cgroup.steps`.
        cgroups: the cgroups that it is in, as `linux.cgroup.group.Cgroup.labels`.
        cgroup_joins: the steps that move it to them once it is there; none: it is born in them.
        cgroup_mounts: what /sys/fs/cgroup shows: ``("", "cgroup2", "")`` or one entry a v1 hierarchy.
        terminal: rows and columns of the terminal, None for plain streams.
        network: the steps that connect its network namespace.
        ports: the steps that take what others find it by: the ports that are published, the socket of its supervisor.
        published: the steps that lead them to the container.
        detached: the container outlives the process that starts it.
        gate: it waits before the exec until `engine.process.gate.open_gate` lets it pass, `start` of an OCI runtime.
        ordinary: an ordinary user starts it, who may map no id but his own without help.
        rootless: an ordinary user starts it: he has rights over namespaces that are joined in their user namespace only.
        keyring: it gets a session keyring of its own.
        pivot: the root is changed by pivot_root(2); it can't be where / is the initramfs.
        kept_fds: how many descriptors of the caller's, from 3 on, stay open in the container.
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
