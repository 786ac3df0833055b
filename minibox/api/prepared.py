"""Images prepared by a function: the first process makes the image, and later runs reuse it."""

from __future__ import annotations

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
DIGITS = 24  # of the digest of everything that the image depends on
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
    """Run ``prepare`` in a sandbox of ``image``, commit that to a new image, and return the new image's name.

    The first process makes the image, under a lock; others reuse it. It is made again when ``image``, the source code of
    ``prepare``, ``key`` or the options change. Sandboxes of it copy nothing: each is an overlay on the same files.

    Args:
        name: part of the new image's name: lower case letters, digits, ``_``, ``.`` and ``-``.
        prepare: prepares the sandbox. The image holds files only, no processes: stop a database before you return.
        key: anything else that the image depends on.
        options: options of the sandbox in which it is prepared.

    Raises:
        InvalidReference: ``name`` is not valid in an image name.
        MiniboxError: the image can't be made. What ``prepare`` raises is passed on.
    """
    import hashlib

    from minibox.engine.resources.registry import resolve_pulling
    from minibox.engine.spec.options import RunOptions
    from minibox.image.layout.layout import locked
    from minibox.image.reference import parse, parse_name
    from minibox.image.store import ImageStore

    where = place(options)
    store = ImageStore(where.home.root)
    below = store.cached(image) or resolve_pulling(store, parse_name(image), RunOptions(image), None)
    about = repr((below.digest, _text_of(prepare), key, sorted(options.items(), key=repr)))
    digest = hashlib.sha256(about.encode()).hexdigest()[:DIGITS]
    reference = f"{REPOSITORY}/{name}:{digest}"
    parse(reference)
    if _is_there(where.home.root, reference):
        return reference
    os.makedirs(f"{where.home.root}/prepared", 0o700, exist_ok=True)
    lock = f"{where.home.root}/prepared/{digest}"
    with locked(lock):
        if not _is_there(where.home.root, reference):  # another process may have made it while we waited
            _make(reference, name, prepare, image, where.home.root, options)
            os.unlink(lock)  # safe: a process that waits for this lock checks for the image first
    return reference


def _is_there(root: str, reference: str) -> bool:
    from minibox.image.store import ImageStore

    try:
        ImageStore(root).resolve(reference)
        return True
    except ImageNotFound:
        return False


def _text_of(function: Callable[[Sandbox], object]) -> str:
    """Return the source of ``function``, or its bytecode where there is no source, as in an interactive session."""
    import inspect

    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code: Any = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names)) if code else repr(function)


def _make(
    reference: str, name: str, prepare: Callable[[Sandbox], object], image: str, root: str, options: ContainerOptions
) -> None:
    from minibox.engine.files.commit import CommitOptions, commit

    with Sandbox(image, **options) as box:
        prepare(box)
        commit(root, box.id, CommitOptions(reference=reference, change=(f"LABEL {LABEL}={name}",)))
