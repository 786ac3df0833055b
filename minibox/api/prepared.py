"""Images that a function prepares: made once, by whichever process comes first, and kept for the next run."""

from __future__ import annotations

import fcntl
import os

from minibox.api.place import place
from minibox.api.sandbox import Sandbox
from minibox.errors import ImageNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Unpack

    from minibox.api.options import ContainerOptions

REPOSITORY = "minibox-prepared"
DIGITS = 24  # of the digest of all that it depends on
LABEL = "org.minibox.prepared"


def prepared_image(
    name: str,
    prepare: Callable[[Sandbox], object],
    /,
    image: str,
    *,
    key: str = "",
    **options: Unpack[ContainerOptions],
) -> str:
    """The name of an image that is ``image`` with what ``prepare`` does in a sandbox of it.

    It is made once, under a lock, by whichever process comes first, and made anew when ``image``, the source text of
    ``prepare``, ``key`` or the options have changed. Each sandbox of it is a fork: an overlay on the same files.

    Args:
        name: a part of its name: lower case letters, digits, ``_``, ``.`` and ``-``.
        prepare: what has to be done once. Processes that it starts are no part of the image: a database is stopped.
        key: what else it depends on.
        options: of the sandbox in which it is prepared.

    Raises:
        InvalidReference: an image can't be called so.
        MiniboxError: it can't be made; whatever ``prepare`` raises.
    """
    import hashlib

    from minibox.engine.options import RunOptions
    from minibox.engine.registry import resolve_pulling
    from minibox.image.reference import parse
    from minibox.image.store import ImageStore

    where = place(options)
    store = ImageStore(where.root)
    try:
        below = store.resolve(image)
    except ImageNotFound:
        below = resolve_pulling(store, RunOptions(image), None)
    about = repr((below.digest, _text_of(prepare), key, sorted(options.items(), key=repr)))
    digest = hashlib.sha256(about.encode()).hexdigest()[:DIGITS]
    reference = f"{REPOSITORY}/{name}:{digest}"
    parse(reference)
    if _is_there(where.root, reference):
        return reference
    os.makedirs(f"{where.root}/prepared", 0o700, exist_ok=True)
    lock = f"{where.root}/prepared/{digest}"
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _is_there(where.root, reference):  # else somebody else was faster
            _make(reference, name, prepare, image, where.root, options)
            os.unlink(lock)  # who waits for it looks first
    finally:
        os.close(fd)
    return reference


def _is_there(root: str, reference: str) -> bool:
    from minibox.image.store import ImageStore

    try:
        ImageStore(root).resolve(reference)
        return True
    except ImageNotFound:
        return False


def _text_of(function: Callable[[Sandbox], object]) -> str:
    """What a function does: its source, or without that, as in an interactive session, its code."""
    import inspect

    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code: Any = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names)) if code else repr(function)


def _make(
    reference: str, name: str, prepare: Callable[[Sandbox], object], image: str, root: str, options: ContainerOptions
) -> None:
    from minibox.engine.commit import CommitOptions, commit

    with Sandbox(image, **options) as box:
        prepare(box)
        commit(root, box.id, CommitOptions(reference=reference, change=(f"LABEL {LABEL}={name}",)))
