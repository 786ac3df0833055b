"""What is different inside the sandbox of a sandboxed function, where minibox may be imported, too."""

from __future__ import annotations

import sys

from minibox.errors import UsageError

INSIDE = "_minibox_sandbox"  # a key of sys.modules that `sandboxed_child` sets there


class Unguarded(UsageError):
    """The program's own code, which runs again in the sandbox of a function, used minibox there."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the program's module-level code runs again in the sandbox, and makes a sandbox there",
            'guard module-level code: put it below if __name__ == "__main__":',
        )


def refuse_in_loading(what: str) -> None:
    """Refuse to do something while the program's own code runs again in the sandbox of a function.

    Raises:
        Unguarded: it runs again right now.
    """
    if getattr(sys.modules.get(INSIDE), "is_loading", False):
        raise Unguarded(what)
