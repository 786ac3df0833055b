"""Containers on disk, and whom they belong to.

    root/live/<id>              held with flock by the owner of a running container: the kernel
                                drops the lock with the owner, whatever kills it; says which image
                                it uses and, once there is one, its first process
    root/names/<name>           a symlink to the id: a name is taken or refused in one step
    root/containers/<id>/       upper, work, hosts, ..., and state.json once it has ended

A container whose lock is free and whose file in ``live`` is still there lost its owner: `collect`
ends and removes what it left.
"""

from __future__ import annotations

import fcntl
import os
from errno import EACCES, EAGAIN, ENOSPC, EROFS

from minibox.errors import ContainerNotFound, MiniboxError, NameTaken, UsageError, kernel_says
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minibox.image.store import ResolvedImage

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
ID_LENGTH = 64
HEXADECIMAL = frozenset("0123456789abcdef")
REMOVE, KEEP = b"remove", b"keep"
COMMAND_BYTES_MAX = 4096
LIVE_BYTES_MAX = 1 << 17
ADJECTIVES = ("brave calm clever crisp eager early fair fast fine gentle glad grand happy keen kind lively lucky "
              "merry neat nimble noble proud quick quiet rapid sharp shiny silent smart snug solid steady sunny "
              "swift tidy warm wise witty young zesty").split()  # fmt: skip
NOUNS = ("badger beaver cedar comet coral crane daisy delta ember falcon fern finch fjord fox gecko harbor hazel "
         "heron iris island ivy jay juniper lark lemur linden lotus lynx maple marten meadow otter panda pine plover "
         "poppy quail raven reef robin sable sparrow spruce tern thistle tulip violet walnut willow wren").split()  # fmt: skip


class Claim:
    """The ownership of one container, held while this object lives.

    Attributes:
        id: 64 hexadecimal digits.
        directory: the container's own.
        name: its name.
    """

    def __init__(self, root: str, name: str, *, remove: bool) -> None:
        """Make an id and claim it and a name.

        Args:
            name: "" for one that is made up.
            remove: what `collect` does when this process can't: remove it, or keep its files.

        Raises:
            NameTaken, UsageError: of ``name``.
            MiniboxError: the disk is full, or the state root can't be written.
        """
        self.root = root
        self.id = os.urandom(32).hex()
        self.directory = f"{root}/containers/{self.id}"
        self.name = ""
        self._what_to_do = REMOVE if remove else KEEP
        self._noted = False
        self._fd = -1
        try:
            self._fd = _lock_new(f"{root}/live", self.id)
            self.name = self._take_name(name)
        except OSError as error:
            self.release()
            raise _unwritable(root, error) from error
        except BaseException:
            self.release()
            raise

    def _take_name(self, name: str) -> str:
        """A symlink for a name; a made-up name of a short life needs none."""
        directory = f"{self.root}/names"
        if not name:
            return made_up_name(self.id)
        if len(name) < 2 or len(name) > 128 or not name[0].isalnum() or not NAME_CHARACTERS.issuperset(name):
            raise UsageError(
                f"invalid container name {name!r}", "letters, digits, '_', '.' and '-', the first a letter or digit"
            )
        os.makedirs(directory, 0o700, exist_ok=True)
        try:
            os.symlink(self.id, f"{directory}/{name}")
        except FileExistsError:
            holder = _holder(directory, name, self.root)
            if not holder:
                return self._take_name(name)
            force = "--force " if is_live(self.root, holder) else ""
            raise NameTaken(
                f"the name {name!r} is taken by container {holder[:12]}",
                f"choose another, or: minibox rm {force}{name}",
            ) from None
        return name

    def note_image(self, reference: str, image: ResolvedImage) -> None:
        """Say which image is used, and which layers; a container that never says is one that never began.

        Raises:
            MiniboxError: the disk is full.
        """
        fields = (reference, image.digest, image.config_digest, *image.chain_ids)
        line = b"\0".join((self._what_to_do, *(os.fsencode(field) for field in fields))) + b"\n"
        try:
            if self._noted:
                os.ftruncate(self._fd, 0)
                os.lseek(self._fd, 0, os.SEEK_SET)
            self._noted = True
            if os.write(self._fd, line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def note_process(self, pid: int, command: Sequence[str]) -> None:
        """Say which process is the container's first, for who wants to kill it: valid while the lock is held."""
        words = b"\0".join((b"%d" % pid, *(os.fsencode(word) for word in command)))
        os.write(self._fd, words[:COMMAND_BYTES_MAX])

    def release(self, *, finished: bool = True) -> None:
        """Give up the lock: the container has ended, and if ``finished`` nothing is left to `collect`."""
        if self._fd >= 0:
            if finished:
                os.unlink(f"{self.root}/live/{self.id}")
            os.close(self._fd)
            self._fd = -1


def made_up_name(container_id: str) -> str:
    """The name of a container that was given none; a function of its id."""
    seed = int(container_id[:8], 16)
    return f"{ADJECTIVES[seed % len(ADJECTIVES)]}_{NOUNS[seed // len(ADJECTIVES) % len(NOUNS)]}_{container_id[8:12]}"


def _lock_new(directory: str, name: str) -> int:
    """Make a file and hold its lock; again when `collect` was faster."""
    while True:
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            os.makedirs(directory, 0o700, exist_ok=True)
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _holder(directory: str, name: str, root: str) -> str:
    """Whose name it is; "" when it was nobody's any more and has been freed.

    Under a lock: between our look and our unlink another may have freed the name and taken it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        holder = os.readlink(f"{directory}/{name}")
        if not holder_is_gone(root, holder):
            return holder
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)
    return ""


def _unwritable(root: str, error: OSError) -> MiniboxError:
    hint = {
        EACCES: "set --root to a directory that you may write, or run as root",
        ENOSPC: "free some space, or set --root to a directory on another disk",
        EROFS: "set --root to a directory on a disk that can be written",
    }.get(error.errno or 0)
    return MiniboxError(f"write the state in {error.filename or root}: {kernel_says(error)}", hint)


def orphans(root: str) -> Iterator[tuple[str, bool, int]]:
    """Containers that lost their owner: id, whether to remove it, and the lock, held until the next is asked for."""
    try:
        names = os.listdir(f"{root}/live")
    except FileNotFoundError:
        return
    for name in names:
        if len(name) != ID_LENGTH or not HEXADECIMAL.issuperset(name):
            continue  # not a file of ours
        try:
            fd = os.open(f"{root}/live/{name}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno != EAGAIN:
                raise
            continue
        try:
            if os.fstat(fd).st_nlink:
                yield name, not os.read(fd, len(KEEP)).startswith(KEEP), fd
        finally:
            os.close(fd)


def holder_is_gone(root: str, container_id: str) -> bool:
    """Is there neither a running container of that id nor files of it?"""
    return not os.path.lexists(f"{root}/live/{container_id}") and not os.path.isdir(f"{root}/containers/{container_id}")


def drop_name(root: str, container_id: str, name: str) -> None:
    """Free a name if it is that container's; with ``name`` "" whichever it has."""
    directory = f"{root}/names"
    try:
        names = [name] if name else os.listdir(directory)
    except FileNotFoundError:
        return
    for each in names:
        try:
            if os.readlink(f"{directory}/{each}") == container_id:
                os.unlink(f"{directory}/{each}")
        except OSError:
            continue


def write(directory: str, state: dict[str, Any]) -> None:
    """Write state.json: a reader sees the old or the new."""
    from json import dumps

    temporary = f"{directory}/state.json.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(dumps(state, indent=1) + "\n")
    os.rename(temporary, f"{directory}/state.json")


def read(root: str, container_id: str) -> dict[str, Any]:
    """What is known of a container; a damaged file says so and costs no other container."""
    from json import loads

    try:
        with open(f"{root}/containers/{container_id}/state.json", encoding="utf-8") as file:
            found = loads(file.read())
    except FileNotFoundError:
        return _without_file(root, container_id)
    except (ValueError, RecursionError):
        found = None
    state: dict[str, Any] = {"Id": container_id, "Name": "", "Image": "", "Command": []}
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("Id", "Name", "Status")):
        return {**state, "Status": "damaged"}
    return {**state, **found}


def _without_file(root: str, container_id: str) -> dict[str, Any]:
    """What is known of a container that `run --rm` never writes a file for."""
    name = made_up_name(container_id)
    state: dict[str, Any] = {"Id": container_id, "Name": name, "Image": "", "Command": [], "Status": "running"}
    try:
        live = _read_live(root, container_id)
        state |= {"Image": live.reference, "ImageDigest": live.digest, "ImageId": live.image_id}
        state |= {"Command": list(live.command), "Created": os.stat(f"{root}/live/{container_id}").st_mtime}
        for each in os.listdir(f"{root}/names"):
            if os.readlink(f"{root}/names/{each}") == container_id:
                state["Name"] = each
    except OSError:  # it ends just now
        pass
    return state


def containers(root: str) -> list[dict[str, Any]]:
    """All containers that have files, in no order."""
    return [read(root, name) for name in _listed(f"{root}/containers")]


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def find(root: str, name_or_id: str) -> dict[str, Any]:
    """The one container of that name, or whose id begins so.

    Raises:
        ContainerNotFound: there is none, or more than one.
    """
    found = [
        state
        for state in containers(root)
        if name_or_id and (state["Name"] == name_or_id or state["Id"].startswith(name_or_id))
    ]
    exact = [state for state in found if name_or_id in (state["Name"], state["Id"])]
    if len(exact or found) != 1:
        what = "ambiguous" if found else "not there"
        raise ContainerNotFound(f"container {name_or_id!r} is {what}", "minibox ps --all lists all of them")
    return (exact or found)[0]


@record
class _Live:
    """What an owner has written into ``live``; ``pid`` is -1 while there is none yet."""

    reference: str = ""
    digest: str = ""
    image_id: str = ""
    chain_ids: tuple[str, ...] = ()
    pid: int = -1
    command: tuple[str, ...] = ()


def _read_live(root: str, container_id: str) -> _Live:
    with open(f"{root}/live/{container_id}", "rb") as file:
        return _parse_live(file.read(LIVE_BYTES_MAX))


def _parse_live(data: bytes) -> _Live:
    """Of `Claim.note_image` and `Claim.note_process`, or of as much as was written so far."""
    image, ended, process = data.partition(b"\n")
    _, *fields = os.fsdecode(image).split("\0")
    pid, *command = os.fsdecode(process).split("\0")
    if not ended or len(fields) < 3:
        return _Live()
    reference, digest, image_id, *chain_ids = fields
    number = int(pid) if pid.isascii() and pid.isdigit() else -1
    return _Live(reference, digest, image_id, tuple(chain_ids), number, tuple(command))


@record
class Use:
    """What a container needs of the images.

    Attributes:
        id: the container's.
        digest: of the image's manifest; "" when it is not known.
        chain_ids: the layers of one that is being started or runs; who has a root file system has them on record in
            `minibox.storage.layers_in_use` too.
        running: whether an owner holds it.
    """

    id: str
    digest: str
    chain_ids: tuple[str, ...]
    running: bool


def uses(root: str) -> list[Use]:
    """What all containers need: those that are being started, run, or have ended and left files.

    Who removes images calls this after he has changed the index: a container that isn't here yet looks at the index
    once more after it has noted its image.
    """
    found: dict[str, Use] = {}
    # First those that run: one that ends between the two looks is in the second.
    for name in _listed(f"{root}/live"):
        try:
            live = _read_live(root, name)
        except OSError:
            continue  # it has just ended
        if live.digest:
            found[name] = Use(name, live.digest, live.chain_ids, True)
    for state in containers(root):
        digest = state.get("ImageDigest")
        found.setdefault(state["Id"], Use(state["Id"], digest if isinstance(digest, str) else "", (), False))
    return list(found.values())


def is_live(root: str, container_id: str) -> bool:
    """Does an owner hold it?"""
    return live_process(root, container_id) != 0


def live_process(root: str, container_id: str) -> int:
    """The first process of a container that an owner holds: -1 while it is being started, 0 when none holds it."""
    try:
        fd = os.open(f"{root}/live/{container_id}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        # Shared: two that look don't take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _parse_live(os.read(fd, LIVE_BYTES_MAX)).pid
    finally:
        os.close(fd)
    return 0
