"""The user and groups of the process: ``-u`` and ``--group-add``, looked up in the image's own files.

The rules are Docker's (moby/sys/user ``GetExecUser``): a name wins over a number, a number needs no entry, and
supplementary groups come from /etc/group unless the user names a group.
"""

from __future__ import annotations

from errno import ELOOP, ENOENT, ENOTDIR, ESRCH

from minibox.errors import UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    #: The text of ``/etc/passwd`` or ``/etc/group`` in the image; "" when it has none.
    UserLookup = Callable[[str], str]

PASSWD, GROUP = "/etc/passwd", "/etc/group"
DATABASE_BYTES_MAX = 16 << 20  # of each file
ABSENT = frozenset((ENOENT, ENOTDIR, ELOOP, ESRCH))  # the file doesn't exist
_LARGEST_ID = (1 << 31) - 1  # Docker's limit: some kernel interfaces read larger ids as negative


@record
class ResolvedUser:
    """The numbers for ``process.user`` of an OCI Spec, and the home directory for ``HOME``.

    Attributes:
        additional_gids: supplementary groups, beginning with the primary group. Without it, a process could leave its
            own group and get access that the group is denied (CVE-2022-36109).
    """

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str
    name: str = ""


def resolve_user(user: str, group_add: Iterable[str], lookup: UserLookup) -> ResolvedUser:
    """Look up ``[name|uid][:group|gid]`` and the added groups.

    Raises:
        UsageError: a name that isn't in the image's files, or an id out of range.
    """
    if not user.isprintable():
        raise UsageError(f"invalid user {user!r}")
    user_word, _, group_word = user.partition(":")
    wanted = _number(user_word) if user_word else 0
    uid, gid, home, name = 0, 0, "/", ""
    for entry in _entries(lookup(PASSWD), 6):
        entry_uid, entry_gid = _number(entry[2]), _number(entry[3])
        if entry_uid is None or entry_gid is None:
            continue
        if entry[0] == user_word or entry_uid == wanted:
            uid, gid, home, name = entry_uid, entry_gid, entry[5] or "/", entry[0]
            break
    else:
        if user_word and wanted is None:
            raise UsageError(
                f"unable to find user {user_word}: no matching entries in passwd file",
                hint="use a name that the image's /etc/passwd has, or a number",
            )
        uid = _checked(wanted or 0, user_word)
    groups = lookup(GROUP) if group_word or name or group_add else ""
    supplementary: list[int] = []
    if group_word:
        gid = _group(group_word, groups)
    elif name:
        supplementary = [
            number
            for entry in _entries(groups, 4)
            if name in entry[3].split(",") and (number := _number(entry[2])) is not None
        ]
    supplementary += [_group(word, groups) for word in group_add]
    return ResolvedUser(uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home, name)


def _group(word: str, groups: str) -> int:
    if not word or not word.isprintable():
        raise UsageError(f"invalid group {word!r}")
    wanted = _number(word)
    for entry in _entries(groups, 3):
        number = _number(entry[2])
        if number is not None and (entry[0] == word or number == wanted):
            return number
    if wanted is None:
        raise UsageError(
            f"unable to find group {word}: no matching entries in group file",
            hint="use a name that the image's /etc/group has, or a number",
        )
    return _checked(wanted, word)


def _entries(text: str, fields: int) -> Iterator[list[str]]:
    """Yield the lines of a passwd(5) or group(5) file that have at least three fields, padded to ``fields``."""
    for line in text.split("\n"):
        line = line.strip()
        if line and line[0] != "#":
            entry = line.split(":")
            if len(entry) >= 3:
                yield entry + [""] * (fields - len(entry))


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= 20 else None


def _checked(number: int, word: str) -> int:
    if number > _LARGEST_ID:
        raise UsageError(f"id {word} is out of range", hint=f"uids and gids must be in the range 0-{_LARGEST_ID}")
    return number
