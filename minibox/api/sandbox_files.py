"""What a `minibox.Sandbox` does with its files."""

from __future__ import annotations

import os

from minibox.engine import box_files
from minibox.engine.interrupts import uninterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.engine.embedded import Embedded

READ_BYTES_MAX = 64 << 20


class SandboxFiles:
    """The files of a sandbox: written, read, copied, compared and made an image of."""

    _box: Embedded

    def write_file(
        self, path: str | os.PathLike[str], data: str | bytes, *, mode: int = 0o644, user: str | int | None = None
    ) -> None:
        """Write a file in it, whose directory is there; text is UTF-8.

        Args:
            user: whose it is, as of `ContainerOptions`; root's when it isn't given.

        Raises:
            MiniboxError: the directory isn't there, or can't be written.
        """
        content = data.encode() if isinstance(data, str) else bytes(memoryview(data))
        name = "" if user is None else str(user)
        uninterrupted(lambda: box_files.write(self._box, os.fspath(path), content, mode, name))

    def read_file(self, path: str | os.PathLike[str], *, limit_bytes: int = READ_BYTES_MAX) -> bytes:
        """The content of a file in it.

        Args:
            limit_bytes: a larger file is refused, whatever its program has made it: `get` copies a file of any size.

        Raises:
            MiniboxError: it isn't there, is no regular file, or is larger.
        """
        return uninterrupted(lambda: box_files.read(self._box, os.fspath(path), limit_bytes))

    def put(self, source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        """Copy a file or a directory of the host into it, by the rules of ``docker cp``: it is root's inside.

        Raises:
            MiniboxError: one of both isn't there, or a file would replace a directory or the other way round.
        """
        uninterrupted(lambda: box_files.put(self._box, os.fspath(source), os.fspath(path)))

    def get(self, path: str | os.PathLike[str], destination: str | os.PathLike[str]) -> None:
        """Copy a file or a directory of it to the host, by the same rules: it is the caller's.

        Raises:
            MiniboxError: one of both isn't there, or a file would replace a directory or the other way round.
        """
        uninterrupted(lambda: box_files.get(self._box, os.fspath(path), os.fspath(destination)))

    def diff(self) -> list[tuple[str, str]]:
        """What has changed in its root file system since its image, sorted by path: ``("A", "/etc/new")``.

        The first is A for what was added, C for changed, D for deleted.
        """
        from minibox.engine.differences import diff

        self._box.check_open("compare")
        return uninterrupted(lambda: diff(self._box.root, self._box.id))

    def commit(self, reference: str, *, changes: Iterable[str] = (), message: str = "") -> str:
        """Make an image of it, with a layer of what has changed; its processes are stopped meanwhile.

        A database is better stopped before, so that all of it is in its files.

        Args:
            reference: the image's name.
            changes: Dockerfile instructions for its config, such as ``CMD ["serve"]``.

        Returns:
            The image's id, ``sha256:`` and 64 digits.
        """
        from minibox.engine.commit import CommitOptions, commit

        self._box.check_open("commit")
        options = CommitOptions(reference=reference, change=tuple(changes), message=message)
        return uninterrupted(lambda: commit(self._box.root, self._box.id, options))
