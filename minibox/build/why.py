"""Why a line wasn't reused: what differs from the last time that it was carried out."""

from __future__ import annotations

import stat
import time

from minibox.build.cache import read_manifest, stored
from minibox.build.context.fingerprint import FINGERPRINT
from minibox.build.context.selection import entries
from minibox.build.history import pruned_s
from minibox.build.line import CACHE, cache_of, key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minibox.build.context.context import Selection
    from minibox.build.history import History, Place
    from minibox.build.line import Key, Line

    Inputs = Mapping[str, str | Selection]

FILES_MAX = 5
TEXT_MAX = 60
LINE = "line"  # the fact that is the line itself


def reused(line: Line, now_s: float | None = None) -> str:
    """Say where a reused line comes from."""
    now_s = time.time() if now_s is None else now_s
    cache = cache_of(line.key)
    where = f"{line.made_by} in the cache {cache}" if cache else line.made_by
    return f"reused from {where}, made {_ago(now_s - line.made_s)}"


def why(root: str, history: History, place: Place, key: Key, inputs: Inputs) -> list[str]:
    """Say why no line with this key was found: what differs from the last time, the first thing first.

    Args:
        history: of the Dockerfile.
        inputs: what the line reads, as for `line.key_of`.
    """
    if (pruned := pruned_s(root, key.id)) is not None:
        return [f"it was pruned {_ago(time.time() - pruned)}"]
    former = history.former(place)
    if former and former.id == key.id:
        return ["its layer is gone"]
    former = former or _nearest(root, key)
    if former is None:
        return ["it was never built before"]
    if cache := cache_of(former):
        former = key_of(
            former.parent, {name: each for name, each in former.facts.items() if name != CACHE}, former.inputs
        )
        if former.id == key.id:
            return [f"the last build had it from the cache {cache}"]
    return differences(root, former, key, inputs) or ["the last build didn't finish it"]


def differences(root: str, former: Key, key: Key, inputs: Inputs) -> list[str]:
    """Say what differs between two keys."""
    found = []
    if former.parent != key.parent:
        found.append(f"what is below it has changed: it is {_short(key.parent)}, was {_short(former.parent)}")
    found += _of_facts(former.facts, key.facts)
    for name in sorted({*former.inputs, *key.inputs}):
        was, now = former.inputs.get(name), key.inputs.get(name)
        if was == now:
            continue
        if was is None or now is None:
            found.append(f"{name} is {'new' if was is None else 'gone'}")
            continue
        found += _of_input(root, name, was, inputs.get(name))
    return found


def _of_facts(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in sorted({*was, *now}, key=lambda name: (name != LINE, name)):
        if was.get(name) == now.get(name):
            continue
        what = "the line" if name == LINE else name
        if name not in was:
            found.append(f"{what} is new: {_quoted(now[name])}")
        elif name not in now:
            found.append(f"{what} is gone, was {_quoted(was[name])}")
        else:
            found.append(f"{what} is {_quoted(now[name])}, was {_quoted(was[name])}")
    return found


def _of_input(root: str, name: str, was: str, now: str | Selection | None) -> list[str]:
    if now is None or isinstance(now, str):
        return [f"{name} has changed"]
    before = read_manifest(root, was)
    if before is None:
        return [f"the files of {name} have changed; the list of the former ones was pruned"]
    changed = changed_files(before, now.manifest)
    found = [f"{path}: {what}" for path, what in changed[:FILES_MAX]]
    if len(changed) > FILES_MAX:
        found.append(f"and {len(changed) - FILES_MAX} more files")
    return found or [f"the order of the files of {name} has changed"]


def changed_files(was: bytes, now: bytes) -> list[tuple[str, str]]:
    """Compare two manifests; return the paths that differ, and in what."""
    before, after = entries(was), entries(now)
    found = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        what = "new" if old is None else "gone" if new is None else _of_file(old, new)
        found.append((ascii(path)[1:-1] or ".", what))
    return found


def _of_file(old: bytes, new: bytes) -> str:
    was_mode, was_uid, was_gid, was_content, was_attributes = FINGERPRINT.unpack(old)
    mode, uid, gid, content, attributes = FINGERPRINT.unpack(new)
    if stat.S_IFMT(was_mode) != stat.S_IFMT(mode):
        return "another kind of file"
    found = []
    if content != was_content:
        found.append("link target" if stat.S_ISLNK(mode) else "device" if not stat.S_ISREG(mode) else "content")
    if mode != was_mode:
        found.append(f"mode {stat.S_IMODE(mode):o}, was {stat.S_IMODE(was_mode):o}")
    if (uid, gid) != (was_uid, was_gid):
        found.append(f"owner {uid}:{gid}, was {was_uid}:{was_gid}")
    if attributes != was_attributes:
        found.append("extended attributes")
    return " and ".join(found)


def _nearest(root: str, key: Key) -> Key | None:
    """Return the key of a stored line that resembles this one most: the same line, else one on the same state."""
    lines = sorted(stored(root), key=lambda each: each.used_s, reverse=True)
    keys = [each.line.key for each in lines]
    same = [each for each in keys if each.facts.get(LINE) == key.facts.get(LINE)]
    word = key.facts.get(LINE, "").partition(" ")[0]
    alike = [each for each in keys if each.parent == key.parent and each.facts.get(LINE, "").partition(" ")[0] == word]
    best = [each for each in same if each.parent == key.parent] or same or alike
    return best[0] if best else None


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "...")


def _short(name: str) -> str:
    return name[:19] if name.startswith("sha256:") else name or "nothing"


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if (count := int(seconds // length)) >= 1:
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"
