"""An operation as data: a step of a container's start or end.

Code that compiles operations is pure; code that executes them looks the name up in a table. `minibox.plan.operations`
has the constructors for what runs between clone and exec. `minibox.plan.parent` says for each operation of the parent
what it does, and how to undo it.
"""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Argument: TypeAlias = "int | str | bytes | tuple[str, ...] | None"

# Who runs an operation.
PARENT = "parent"  # the process that minibox runs in
MOUNTER = "mounter"  # a short-lived process with the host's privileges and a mount namespace of its own
INIT = "init"  # the process that becomes the container's first


@record
class Op:
    """One step: ``name(*args)``, run by ``actor``, because of ``why``."""

    name: str
    args: tuple[Argument, ...]
    why: str
    actor: str = INIT


def parent(name: str, *args: Argument, why: str) -> Op:
    """Return a step of the parent; see `minibox.plan.parent`."""
    return Op(name, args, why, PARENT)
