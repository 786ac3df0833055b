"""An operation as data: the one record that the steps of a start, and those of its end, are made of.

Whoever compiles operations is pure; whoever executes them looks the name up in a table. `minibox.plan.operations` has
the constructors of what runs between clone and exec, `minibox.plan.parent` says of the parent's what each is and what
undoes it.
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
    """A step of the parent's: `minibox.plan.parent` says what it is."""
    return Op(name, args, why, PARENT)
