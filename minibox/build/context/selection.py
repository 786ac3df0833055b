"""What one line reads of a tree: the sources of COPY and ADD with all that is in them, and a digest of it."""

from __future__ import annotations

import hashlib
import stat
import struct

from minibox.build.context.fingerprint import FINGERPRINT
from minibox.build.context.patterns import clean, glob, has_wildcards, patterns_of
from minibox.build.context.tree import is_directory, kind_of, mode_of
from minibox.errors import BuildError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from minibox.build.context.patterns import Patterns
    from minibox.build.context.tree import Tree

    Files = Iterable[tuple[str, bytes]]

IDENTITY_BYTES = 16  # a record begins with the device and the inode
PIVOT = "/./"
ONE_LINK = struct.pack("=I", 1)
LINKS_AT = struct.calcsize("=QQQqqIII")  # where a record has the number of hard links
ROOT_MODE = stat.S_IFDIR | 0o755


@record
class Selected:
    """A file that a line copies.

    Attributes:
        path: in the tree, without links.
        to: below the destination; "" for the source itself.
        status: its record; see `minibox.linux.listing`.
        link: the ``to`` of an earlier file of this source that is the same file: a hard link; "" if there is none.
    """

    path: str
    to: str
    status: bytes
    link: str

    @property
    def mode(self) -> int:
        """Its mode with its kind, as in the image."""
        return mode_of(self.status) if self.path else ROOT_MODE


class Source:
    """One source that was found: a directory, whose content is copied, or anything else.

    Attributes:
        name: its last part as it was written: the new name if the destination is a directory.
        is_directory: whether it is copied into the destination, whatever that is.
    """

    def __init__(self, name: str, is_directory: bool, files: list[tuple[str, str, bytes]]) -> None:
        """``files``: their ``to``, path and record."""
        self.name, self.is_directory, self.files = name, is_directory, files

    def selected(self) -> Iterator[Selected]:
        """Yield what is to be copied: each directory before its content, sorted by name."""
        links: dict[bytes, str] = {}
        for to, path, status in self.files:
            yield Selected(path, to, status, _link(links, status, to or self.name))


class Finder:
    """Finds the sources of a line in a tree."""

    def __init__(self, tree: Tree, exclude: Sequence[str], parents: bool) -> None:
        self._tree = tree
        self._exclude = patterns_of(exclude, "--exclude")
        self._parents = parents

    def find(self, text: str) -> list[Source]:
        """Find what a source means: several files if it has wildcards, or none.

        Raises:
            BuildError: it isn't there, can't be copied, or has a malformed pattern.
        """
        if self._parents:
            return self._with_parents(text)
        path = clean(f"/{text}").lstrip("/")
        if not has_wildcards(path):
            found = self._tree.resolve(path)
            if found is None and "\\" in path:  # it may take away a wildcard's meaning
                path = path.replace("\\", "")
                found = self._tree.resolve(path)
            if found is None:
                raise self._missing(text, path)
            return [self._source(path.rpartition("/")[2], *found)]
        sources = (self._source(name, *found) for name, found in self._matches(path))
        return [each for each in sources if each.is_directory or not self._is_excluded(each.name)]

    def _matches(self, path: str) -> Iterator[tuple[str, tuple[str, bytes]]]:
        """Yield the name and the file, links followed, of each match of a glob. What is below a match isn't one."""
        parts = path.split("/")
        length = next(index for index, part in enumerate(parts) if has_wildcards(part))
        base = self._tree.resolve("/".join(parts[:length]))
        if base is None or not is_directory(base[1]):
            return
        start = f"{base[0]}/" if base[0] else ""
        matches = [glob(part, ascii(path)) for part in parts[length:]]
        candidates = [start]
        for index, match in enumerate(matches):
            above, candidates = candidates, []
            for directory in above:
                for name, status in self._tree.children(directory.rstrip("/")).items():
                    if not match(name):
                        continue
                    if index + 1 < len(matches):
                        if is_directory(status):
                            candidates.append(f"{directory}{name}/")
                        continue
                    found = self._tree.resolve(directory + name)
                    if found is None:
                        raise self._missing(directory + name, directory + name)
                    yield name, found

    def _source(self, name: str, path: str, status: bytes) -> Source:
        if not is_directory(status):
            if stat.S_ISSOCK(mode_of(status)):
                raise BuildError(f"{ascii(path)} in {self._tree.what} is a socket, which can't be copied")
            return Source(name, False, [("", path, status)])
        return Source(name, True, [("", path, status), *self._without_excluded(path, self._tree.below(path))])

    def _with_parents(self, text: str) -> list[Source]:
        base_text, pivot, rest = text.partition(PIVOT)
        if not pivot:
            base_text, rest = "", text
        base_path, pattern = clean(f"/{base_text}").lstrip("/"), clean(f"/{rest}").lstrip("/")
        if has_wildcards(base_path):
            bases = [found for _, found in self._matches(base_path) if is_directory(found[1])]
        else:
            found = self._tree.resolve(base_path)
            if found is None or not is_directory(found[1]):
                raise self._missing(text, base_path)
            bases = [found]
        sources = []
        for path, status in bases:
            included = list(self._without_excluded(path, self._included(path, pattern)))
            if not included and pattern and not has_wildcards(base_path) and not has_wildcards(pattern):
                raise self._missing(text, f"{path}/{pattern}".lstrip("/"))
            if included:
                sources.append(Source("", True, [("", path, status), *included]))
        return sources

    def _included(self, base: str, pattern: str) -> Files:
        """Yield what a pattern of --parents matches below a directory, and the directories on the way to it."""
        if not pattern:
            return self._tree.below(base)
        return _included(self._tree, base, patterns_of([pattern], "--parents"))

    def _without_excluded(self, base: str, files: Files) -> Iterator[tuple[str, str, bytes]]:
        """Yield ``to``, path and record of files, without sockets and what --exclude matches."""
        start = len(base) + 1 if base else 0
        if not self._exclude:
            for path, status in files:
                if not stat.S_ISSOCK(mode_of(status)):
                    yield path[start:], path, status
            return
        flags = {"": self._exclude.none}
        waiting: list[tuple[str, str, bytes]] = []  # excluded directories, which come back if something in them does
        for path, status in files:
            to = path[start:]
            above = to.rpartition("/")[0]
            matched, found = self._exclude.matches(to, flags[above])
            while waiting and not above.startswith(waiting[-1][0]):
                waiting.pop()
            if is_directory(status):
                flags[to] = found
                if matched:
                    waiting.append((to, path, status))
            if not matched and not stat.S_ISSOCK(mode_of(status)):
                yield from waiting
                waiting.clear()
                yield to, path, status

    def _is_excluded(self, name: str) -> bool:
        return self._exclude.matches(name, self._exclude.none)[0]

    def _missing(self, text: str, path: str) -> BuildError:
        """Say why a source isn't there."""
        tree, hint = self._tree, ""
        pattern = tree.ignored.deciding(path) if tree.ignored and path else None
        parent, _, name = path.rpartition("/")
        if pattern and not pattern.is_exception:
            where = f"{tree.ignored.name}:{pattern.line}" if pattern.line else tree.ignored.name
            hint = f"{where} ignores it: {pattern.text!r}"
        elif ".." in text.split("/"):
            hint = f"'..' doesn't lead out of {tree.what}: a source must be in it"
        elif (above := tree.resolve(parent)) and is_directory(above[1]):
            near = [each for each in tree.children(above[0]) if each.lower() == name.lower()]
            if name in near:
                hint = "it is a link that leads nowhere: a link can't lead out of the directory"
                kind = kind_of(tree.children(above[0])[name])
                hint = hint if kind == "a symlink" else f"{ascii(name)} is {kind}"
            elif near:
                hint = f"there is {ascii(near[0])}"
        return BuildError(f"{ascii(text)} is not in {tree.what}", hint or None)


def _included(tree: Tree, base: str, patterns: Patterns) -> Iterator[tuple[str, bytes]]:
    """Yield what the patterns match below a directory, each directory before its content, also those on the way."""
    start = len(base) + 1 if base else 0
    literal = patterns.patterns[0].start
    flags = {"": patterns.none}
    on_the_way: list[tuple[str, bytes]] = []
    stack = [iter(tree.children(base).items())]
    places = [base]
    while stack:
        for name, status in stack[-1]:
            path = f"{places[-1]}/{name}" if places[-1] else name
            to = path[start:]
            matched, found = patterns.matches(to, flags[to.rpartition("/")[0]])
            if matched:
                yield from on_the_way
                on_the_way.clear()
                yield path, status
            if is_directory(status) and (matched or f"{to}/".startswith(literal) or literal.startswith(f"{to}/")):
                flags[to] = found
                if not matched:
                    on_the_way.append((path, status))
                stack.append(iter(tree.children(path).items()))
                places.append(path)
                break
        else:
            stack.pop()
            left = places.pop()
            if on_the_way and on_the_way[-1][0] == left:
                on_the_way.pop()


def manifest(sources: Iterable[Source], fingerprints: dict[bytes, bytes]) -> bytes:
    """Return the description of sources, from which the same bytes result if the same would be copied.

    Args:
        fingerprints: those of the files, by their record.
    """
    pieces: list[bytes] = []
    for source in sources:
        links: dict[bytes, str] = {}
        for to, path, status in source.files:
            found = fingerprints[status]
            if not path:  # the mode of a tree's root doesn't count
                found = FINGERPRINT.pack(ROOT_MODE, 0, 0, *FINGERPRINT.unpack(found)[3:])
            elif link := _link(links, status, to or source.name):
                mode, uid, gid, content, attributes = FINGERPRINT.unpack(found)
                content = hashlib.sha256(b"%s\0%s" % (link.encode(errors="surrogateescape"), content)).digest()
                found = FINGERPRINT.pack(mode, uid, gid, content, attributes)
            name = to if source.is_directory else source.name
            pieces += (name.encode(errors="surrogateescape"), b"\0", found)
    return b"".join(pieces)


def entries(manifest: bytes) -> dict[str, bytes]:
    """Return the fingerprints of a manifest by path. Of several sources' files of one name it is the last one."""
    found, at = {}, 0
    while at < len(manifest):
        end = manifest.index(b"\0", at)
        found[manifest[at:end].decode(errors="surrogateescape")] = manifest[end + 1 : end + 1 + FINGERPRINT.size]
        at = end + 1 + FINGERPRINT.size
    return found


def _link(links: dict[bytes, str], status: bytes, to: str) -> str:
    """Return the first name of a file with several names; "" if this is the first one."""
    if status[LINKS_AT : LINKS_AT + 4] == ONE_LINK or is_directory(status):
        return ""
    first = links.setdefault(status[:IDENTITY_BYTES], to)
    return "" if first == to else first
