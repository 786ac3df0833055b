"""The methods of `minibox.Sandbox` for files."""

from __future__ import annotations

import os

from minibox.api.ownership import Owned
from minibox.engine.container import sandbox_files
from minibox.engine.host.interrupts import uninterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.engine.container.embedded import Embedded

READ_BYTES_MAX = 64 << 20


class SandboxFiles(Owned):
    """The methods of a sandbox for files: write, read, copy and compare them, and make an image from them."""

    _box: Embedded

    def write_file(
        self, path: str | os.PathLike[str], data: str | bytes, *, mode: int = 0o644, user: str | int | None = None
    ) -> None:
        """Write a file in the sandbox. Its directory must exist. Text is written as UTF-8.

        Args:
            user: the owner, as in `ContainerOptions`; root by default.

        Raises:
            MiniboxError: the directory doesn't exist or can't be written.
        """
        content = data.encode() if isinstance(data, str) else bytes(memoryview(data))
        name = "" if user is None else str(user)
        uninterrupted(lambda: sandbox_files.write(self._box, os.fspath(path), content, mode, name))

    def read_file(self, path: str | os.PathLike[str], *, limit_bytes: int = READ_BYTES_MAX) -> bytes:
        """Return the contents of a file in the sandbox.

        Args:
            limit_bytes: the largest size to read. To copy a file of any size, use `get`.

        Raises:
            MiniboxError: it doesn't exist, is no regular file, or is larger than ``limit_bytes``.
        """
        return uninterrupted(lambda: sandbox_files.read(self._box, os.fspath(path), limit_bytes))

    def put(self, source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        """Copy a file or directory from the host into the sandbox, by the rules of ``docker cp``. root owns the copy.

        Raises:
            MiniboxError: a path doesn't exist, or a file would replace a directory, or a directory a file.
        """
        uninterrupted(lambda: sandbox_files.put(self._box, os.fspath(source), os.fspath(path)))

    def get(self, path: str | os.PathLike[str], destination: str | os.PathLike[str]) -> None:
        """Copy a file or directory from the sandbox to the host, by the rules of ``docker cp``. You own the copy.

        Raises:
            MiniboxError: a path doesn't exist, or a file would replace a directory, or a directory a file.
        """
        uninterrupted(lambda: sandbox_files.get(self._box, os.fspath(path), os.fspath(destination)))

    def diff(self) -> list[tuple[str, str]]:
        """Return what has changed in the root file system compared to the image, sorted by path: ``("A", "/etc/new")``.

        A stands for added, C for changed, D for deleted.
        """
        from minibox.engine.files.diff import diff

        self._box.check_open("compare")
        return uninterrupted(lambda: diff(self._box.home.root, self._box.id))

    def commit(self, reference: str, *, changes: Iterable[str] = (), message: str = "") -> str:
        """Make an image from the sandbox, with its changes as a new layer. Its processes are paused meanwhile.

        Stop a database first, so that all its data is in its files.

        Args:
            reference: the name of the new image.
            changes: Dockerfile instructions for its config, such as ``CMD ["serve"]``.
            message: a comment, shown by ``minibox history``.

        Returns:
            The image's id: ``sha256:`` and 64 digits.
        """
        from minibox.engine.files.commit import CommitOptions, commit

        self._box.check_open("commit")
        options = CommitOptions(reference=reference, change=tuple(changes), message=message)
        return uninterrupted(lambda: commit(self._box.home.root, self._box.id, options))
