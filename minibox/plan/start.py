"""What a start needs to know beside the Spec."""

from __future__ import annotations

from minibox.record import record


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
        cgroup: the name of its cgroup; "" for none of its own.
        cgroup_tasks: directories of its cgroup in v1 hierarchies; on v2 it is born in it.
        cgroup_joined: it isn't born in its cgroup, but moved there by who may.
        cgroup_mounts: what /sys/fs/cgroup shows: ``("", "cgroup2", "")`` or one entry a v1 hierarchy.
        terminal: rows and columns of the terminal, None for plain streams.
        network: how the network namespace gets its links; "" for not at all.
        ports: that are published, in words.
        detached: the container outlives the process that starts it.
        gate: it waits before the exec until `engine.gate.open_gate` lets it pass, `start` of an OCI runtime.
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
    cgroup: str = ""
    cgroup_tasks: tuple[str, ...] = ()
    cgroup_joined: bool = False
    cgroup_mounts: tuple[tuple[str, str, str], ...] = ()
    terminal: tuple[int, int] | None = None
    network: str = ""
    ports: tuple[str, ...] = ()
    detached: bool = False
    gate: bool = False
    rootless: bool = False
    keyring: bool = True
    pivot: bool = True
    kept_fds: int = 0
