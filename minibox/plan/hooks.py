"""The hooks of a Spec as operations, in the order of config.md, "POSIX-platform Hooks".

The parent runs ``prestart`` and ``createRuntime`` while init waits before its pivot_root. Init itself runs
``createContainer`` and ``startContainer`` in the container's namespaces. ``poststart`` and ``poststop`` come after the
Plan: see `engine.process.hooks`.
"""

from __future__ import annotations

from minibox.plan import operations as op
from minibox.plan import parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import Hook, Spec
    from minibox.plan.operations import Op


def before_pivot(spec: Spec) -> list[Op]:
    """Return the three kinds that run after all mounts are made and before the host's file system goes away."""
    hooks = spec.get("hooks", {})
    if not any(hooks.get(kind) for kind in ("prestart", "createRuntime", "createContainer", "startContainer")):
        return []
    outside = [
        parent.run_hook(kind, number, hook["path"], tuple(hook.get("args") or [hook["path"]]),
                        tuple(hook["env"]) if "env" in hook else None, hook.get("timeout", -1))
        for kind, found in (("prestart", hooks.get("prestart", [])), ("createRuntime", hooks.get("createRuntime", [])))
        for number, hook in enumerate(found)
    ]  # fmt: skip
    return [
        op.tell(op.TAG_MOUNTED, "hooks run when all mounts are made and the host is still in sight"),
        parent.await_mounts(),
        *outside,
        parent.send_state("creating"),
        parent.send_state("created"),
        op.recv_fd(op.HOOKS_CREATING, "the outer hooks have run; this is the state for hooks inside", op.STATUS),
        op.recv_fd(op.HOOKS_CREATED, "the state for startContainer hooks", op.STATUS),
        *_inside(
            hooks.get("createContainer", []), op.HOOKS_CREATING, op.ROOT, "createContainer: inside, before the pivot"
        ),
    ]


def before_exec(spec: Spec) -> list[Op]:
    """Return the kind that runs last, before the command."""
    hooks = spec.get("hooks", {}).get("startContainer", [])
    return _inside(hooks, op.HOOKS_CREATED, op.HOST, "startContainer: the last before the command")


def _inside(hooks: list[Hook], state: int, directory: int, why: str) -> list[Op]:
    """Return the steps of hooks inside.

    Args:
        directory: where they run; `op.HOST`: in the command's working directory.
    """
    return [
        op.hook(
            state,
            hook["path"],
            tuple(hook.get("args") or [hook["path"]]),
            tuple(hook.get("env", [])),
            hook.get("timeout", 0),
            directory,
            why,
        )
        for hook in hooks
    ]
