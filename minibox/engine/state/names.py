"""Names of containers: ``root/names/<name>`` is a symlink to the id, taken or refused in one step."""

from __future__ import annotations

import fcntl
import os

from minibox.errors import NameTaken, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
LENGTH_MAX = 128
ADJECTIVES = ("brave calm clever crisp eager early fair fast fine gentle glad grand happy keen kind lively lucky "
              "merry neat nimble noble proud quick quiet rapid sharp shiny silent smart snug solid steady sunny "
              "swift tidy warm wise witty young zesty").split()  # fmt: skip
NOUNS = ("badger beaver cedar comet coral crane daisy delta ember falcon fern finch fjord fox gecko harbor hazel "
         "heron iris island ivy jay juniper lark lemur linden lotus lynx maple marten meadow otter panda pine plover "
         "poppy quail raven reef robin sable sparrow spruce tern thistle tulip violet walnut willow wren").split()  # fmt: skip


def made_up(container_id: str) -> str:
    """The name of a container that was given none; a function of its id, so that it needs no symlink."""
    seed = int(container_id[:8], 16)
    return f"{ADJECTIVES[seed % len(ADJECTIVES)]}_{NOUNS[seed // len(ADJECTIVES) % len(NOUNS)]}_{container_id[8:12]}"


def take(root: str, name: str, container_id: str, is_running: Callable[[str], bool]) -> None:
    """Give a container a name.

    Raises:
        UsageError: it can't be one.
        NameTaken: another container has it.
        OSError: the kernel refused.
    """
    if not 2 <= len(name) <= LENGTH_MAX or not name[0].isalnum() or not CHARACTERS.issuperset(name):
        raise UsageError(
            f"invalid container name {name!r}",
            f"2 to {LENGTH_MAX} letters, digits, '_', '.' and '-', the first a letter or digit",
        )
    directory = f"{root}/names"
    os.makedirs(directory, 0o700, exist_ok=True)
    while True:
        try:
            os.symlink(container_id, f"{directory}/{name}")
            return
        except FileExistsError:
            found = _holder(directory, name, root)
        if found == container_id:
            return  # from a command that was killed when it gave it this name
        if found:
            force = "--force " if is_running(found) else ""
            raise NameTaken(
                f"the name {name!r} is taken by container {found[:12]}",
                f"choose another, or: minibox rm {force}{name}",
            )


def holder(root: str, name: str) -> str:
    """The id of the container that was given that name; "" for none."""
    try:
        return os.readlink(f"{root}/names/{name}") if name and CHARACTERS.issuperset(name) else ""
    except OSError:
        return ""


def given(root: str, container_id: str) -> str:
    """The name that a container was given; "" for none."""
    try:
        for name in os.listdir(f"{root}/names"):
            if holder(root, name) == container_id:
                return name
    except FileNotFoundError:
        pass
    return ""


def of(root: str, container_id: str) -> str:
    """The name of a container; a look at all names."""
    try:
        given = [name for name in os.listdir(f"{root}/names") if holder(root, name) == container_id]
    except FileNotFoundError:
        given = []
    return given[0] if given else made_up(container_id)


def is_nobodys(root: str, container_id: str) -> bool:
    """Is there neither a running container of that id nor files of it?"""
    return not os.path.lexists(f"{root}/live/{container_id}") and not os.path.isdir(f"{root}/containers/{container_id}")


def drop(root: str, container_id: str, name: str) -> None:
    """Free a name if it is that container's; with ``name`` "" whichever it has."""
    directory = f"{root}/names"
    try:
        given = [name] if name else os.listdir(directory)
    except FileNotFoundError:
        return
    for each in given:
        try:
            if os.readlink(f"{directory}/{each}") == container_id:
                os.unlink(f"{directory}/{each}")
        except OSError:
            continue


def _holder(directory: str, name: str, root: str) -> str:
    """Whose name it is; "" when it was nobody's any more and has been freed.

    Under a lock: between our look and our unlink another may have freed the name and taken it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        found = os.readlink(f"{directory}/{name}")
        if not is_nobodys(root, found):
            return found
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)
    return ""
