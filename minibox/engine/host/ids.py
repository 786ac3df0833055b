"""The ids of a container's user namespace.

Root gives every container a range of its own, above the ranges that useradd and systemd-nspawn hand out, so that no two
containers' files or processes have an owner in common. The containers of `minibox build` also have larger ids, which
they share with each other. An ordinary user maps the own id to root, and the ranges of /etc/subuid and /etc/subgid
through newuidmap(1).
"""

from __future__ import annotations

import os

from minibox.base.files import closing, content_of
from minibox.errors import MiniboxError, kernel_says, suppress, trying
from minibox.linux.process import exit_status
from minibox.plan.namespaces import has_one_group
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.oci.runtime import LinuxIDMapping, Spec

FIRST_ID = 0x70000000  # just above systemd's container range, systemd.io/UIDS-GIDS
RANGE = 65536
SLOTS = 4096  # up to 2**31: some interfaces show larger ids as negative
FIRST_LARGE_ID = 1 << 31  # on the host; nobody has ids from here on
LARGE_IDS_END = (1 << 31) - 1  # inside: the last one would be 2**32 - 1 on the host, which is no id
RANGES_MAX = 100  # of one user: the kernel takes a page of text


@record
class IdMappings:
    """``linux.uidMappings`` and ``linux.gidMappings`` of the container's user namespace.

    Attributes:
        lease: the path of the file that reserves them; "" for the caller's own ids.
    """

    uids: tuple[LinuxIDMapping, ...]
    gids: tuple[LinuxIDMapping, ...]
    lease: str = ""


def lease_range(root: str, container_id: str) -> IdMappings:
    """Lease a range of host ids that no other container under ``root`` has.

    A symlink ``root/ids/<slot>`` to the container's id reserves it: making it either succeeds or fails, in one step.

    Raises:
        MiniboxError: all ranges are taken, or the lease can't be written.
    """
    directory = f"{root}/ids"
    for slot in _slots(container_id):
        try:
            try:
                os.symlink(container_id, f"{directory}/{slot}")
            except FileNotFoundError:
                os.makedirs(directory, 0o700, exist_ok=True)
                os.symlink(container_id, f"{directory}/{slot}")
        except FileExistsError:
            continue
        except OSError as error:
            raise MiniboxError(f"lease a range of ids in {directory}: {kernel_says(error)}") from error
        return _range(directory, slot)
    raise MiniboxError(f"all {SLOTS} ranges of ids are taken", "end some containers")


def with_large_ids(mappings: IdMappings) -> IdMappings:
    """Return a range of `lease_range` and the ids from there up to 2**31 - 2, whose host ids aren't the container's own."""
    more: LinuxIDMapping = {
        "containerID": RANGE,
        "hostID": FIRST_LARGE_ID + RANGE,
        "size": LARGE_IDS_END - RANGE,
    }
    return IdMappings((*mappings.uids, more), (*mappings.gids, more), mappings.lease)


def example_range(root: str, container_id: str) -> IdMappings:
    """Return a range that a container might get, without reserving it."""
    return _range(f"{root}/ids", next(_slots(container_id)))


def _range(directory: str, slot: int) -> IdMappings:
    whole: LinuxIDMapping = {"containerID": 0, "hostID": FIRST_ID + slot * RANGE, "size": RANGE}
    return IdMappings((whole,), (whole,), f"{directory}/{slot}")


def lease_of(root: str, container_id: str) -> str:
    """Return the path of a container's lease; "" if it has none."""
    directory = f"{root}/ids"
    first = f"{directory}/{next(_slots(container_id))}"
    if _holder(first) == container_id:  # most containers have the first slot that they try
        return first
    try:
        taken = os.listdir(directory)
    except FileNotFoundError:
        return ""
    return next((f"{directory}/{slot}" for slot in taken if _holder(f"{directory}/{slot}") == container_id), "")


def _holder(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def release_slot(path: str, container_id: str) -> bool:
    """Release a range by the path of its lease; False if the container doesn't hold it."""
    try:
        if os.readlink(path) != container_id:
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _slots(container_id: str) -> Iterator[int]:
    """Yield all slots, beginning with one derived from the id, so that two containers rarely try the same."""
    first = int(container_id[:3], 16)
    return ((first + step) % SLOTS for step in range(SLOTS))


def own_ids() -> IdMappings:
    """Return the ids that an ordinary user can map: the own id as root, followed by the subordinate ids.

    Without subordinate ids, or without newuidmap(1) to map them, only the own id.
    """
    uid, gid = os.geteuid(), os.getegid()
    more_uids, more_gids = _subordinate("/etc/subuid", uid, uid), _subordinate("/etc/subgid", uid, gid)
    one_uid: LinuxIDMapping = {"containerID": 0, "hostID": uid, "size": 1}
    one_gid: LinuxIDMapping = {"containerID": 0, "hostID": gid, "size": 1}
    if not (more_uids and more_gids and _found("newuidmap") and _found("newgidmap")):
        return IdMappings((one_uid,), (one_gid,))
    return IdMappings((one_uid, *more_uids), (one_gid, *more_gids))


def note(mappings: IdMappings) -> str:
    """Return a note for the user about a result of `own_ids`; "" for none."""
    if len(mappings.uids) > 1:
        return ""
    return (
        "you have no range of subordinate ids (/etc/subuid, /etc/subgid, newuidmap): the container has one user, "
        "root, and no other; as root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 and your name "
        "gives you one"
    )


def advice_on_more(mappings: IdMappings) -> str:
    """Say how many ids an ordinary user's containers have, and what gives them more."""
    count = min(sum(each["size"] for each in ranges) for ranges in (mappings.uids, mappings.gids))
    return (
        f"your containers have ids below {count}; for more, as root: "
        "usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST and your name"
    )


def _subordinate(path: str, uid: int, own_id: int) -> tuple[LinuxIDMapping, ...]:
    """Return a user's ranges in /etc/subuid or /etc/subgid, to be mapped one after the other after root; subuid(5).

    One that has ids in common with an earlier one, or with ``own_id``, is left out: the kernel would refuse all.
    """
    import pwd

    try:
        names = {pwd.getpwuid(uid).pw_name, str(uid)}
    except KeyError:
        names = {str(uid)}
    found: list[LinuxIDMapping] = []
    taken, inside = [range(own_id, own_id + 1)], 1
    with suppress(OSError):
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, rest = line.strip().partition(":")
                start, _, count = rest.partition(":")
                if name not in names or not start.isdigit() or not count.isdigit() or not int(count):
                    continue
                ids = range(int(start), int(start) + int(count))
                if len(found) == RANGES_MAX or any(ids.start < each.stop and each.start < ids.stop for each in taken):
                    continue
                taken.append(ids)
                found.append({"containerID": inside, "hostID": ids.start, "size": int(count)})
                inside += int(count)
    return tuple(found)


def _found(program: str) -> str:
    """Return the path of a program, or ""."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin"):
        path = f"{directory}/{program}"
        if directory and os.access(path, os.X_OK):
            return path
    return ""


def write_id_maps(pid: int, spec: Spec) -> None:
    """Map the Spec's ids for a process in a new user namespace, as a plan's steps do.

    Raises:
        MiniboxError: the kernel or newuidmap(1) refuses.
    """
    ordinary, alone = os.geteuid() != 0, has_one_group(spec)
    if ordinary and alone:
        deny_setgroups(pid)
    for kind, mappings in (("uid", spec["linux"]["uidMappings"]), ("gid", spec["linux"]["gidMappings"])):
        lines = tuple(f"{each['containerID']} {each['hostID']} {each['size']}" for each in mappings)
        write_map(pid, kind, lines, f"new{kind}map" if ordinary and not alone else "")


def deny_setgroups(pid: int) -> None:
    """Deny setgroups(2), as the kernel requires before an ordinary user maps groups; user_namespaces(7)."""
    _write(f"/proc/{pid}/setgroups", b"deny")


def write_map(pid: int, kind: str, lines: tuple[str, ...], program: str) -> None:
    """Map uids or gids for a process in a new user namespace; user_namespaces(7).

    Args:
        kind: uid or gid.
        lines: ``INSIDE OUTSIDE COUNT`` each.
        program: the name of the program to do it; "" to write the map directly.

    Raises:
        MiniboxError: the kernel or newuidmap(1) refuses.
    """
    path = f"/proc/{pid}/{kind}_map"
    if not program:
        _write(path, "".join(f"{line}\n" for line in lines).encode())
        return
    words = [program, str(pid), *" ".join(lines).split()]
    status = exit_status(os.posix_spawn(_found(program), words, os.environ))
    if status or not content_of(path):
        raise MiniboxError(
            f"map ids with {' '.join(words)}: it failed",
            f"check that /etc/sub{kind} gives you this range, that {program} is set-uid root, and that "
            "/proc/self/status has NoNewPrivs: 0",
        )


def mapped_of(pid: int) -> tuple[list[LinuxIDMapping], list[LinuxIDMapping]]:
    """Return the uid and gid mappings of a process's user namespace, seen from ours; user_namespaces(7).

    Raises:
        OSError: the process has ended.
    """
    found: list[list[LinuxIDMapping]] = []
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
            rows = [list(map(int, line.split())) for line in file]
        found.append([{"containerID": row[0], "hostID": row[1], "size": row[2]} for row in rows])
    return found[0], found[1]


def _write(path: str, data: bytes) -> None:
    with trying(MiniboxError, f"write {data.decode().strip()!r} to {path}"):
        with closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
            os.write(fd, data)
