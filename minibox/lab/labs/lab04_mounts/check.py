"""Lab 4: a mount namespace whose mounts don't go out, and into which some come."""

from __future__ import annotations

from minibox.lab.look import Machine, Mount, Process, named
from minibox.lab.requirement import Missing, require


def check(machine: Machine) -> None:
    own = _by_point(machine.init.within().mounts)
    found = list(machine.apart("mnt"))
    require(found, "no process has a mount namespace of its own: unshare(CLONE_NEWNS) is missing")
    reasons = []
    for process in found:
        try:
            _check_process(process, _by_point(process.within().mounts), own)
            return
        except Missing as missing:
            reasons.append(str(missing))
    raise Missing(reasons[-1] + (f" (looked at {named(found)})" if len(found) > 1 else ""))


def _by_point(mounts: list[Mount]) -> dict[str, Mount]:
    return {each.point: each for each in mounts}


def _check_process(process: Process, its: dict[str, Mount], own: dict[str, Mount]) -> None:
    require(_is_tmpfs(its.get("/private")), f"{process} has no tmpfs on /private")
    require("/private" not in own, "the machine has a mount on /private, too: the namespace comes before the mount")
    shared = its.get("/shared")
    require(shared, f"{process} doesn't have /shared any more")
    assert shared is not None
    require(_is_tmpfs(own.get("/shared/late")), "the machine has no tmpfs on /shared/late")
    require(
        _is_tmpfs(its.get("/shared/late")),
        f"{process} does not see the machine's /shared/late: its /shared is private, or it was unmounted there",
    )
    require(_is_tmpfs(its.get("/shared/own")), f"{process} has no tmpfs on /shared/own")
    require(
        "/shared/own" not in own,
        f"the machine sees /shared/own: the /shared of {process} is still shared with it, where it must be a slave",
    )
    require(
        any(tag.startswith("master:") for tag in shared.tags),
        f"the /shared of {process} is no slave of the machine's: {', '.join(shared.tags) or 'private'}",
    )
    data = its.get("/data")
    require(data, f"{process} has nothing on /data")
    assert data is not None
    require(data.root.endswith("/srv"), f"what {process} has on /data is not /srv, but {data.fs_type} {data.root}")
    require("/data" not in own, "the machine has a mount on /data, too")
    require(
        "ro" in data.options,
        f"/data of {process} is writable: MS_BIND ignores MS_RDONLY, which takes a second call with MS_REMOUNT",
    )


def _is_tmpfs(mount: Mount | None) -> bool:
    return mount is not None and mount.fs_type == "tmpfs"
