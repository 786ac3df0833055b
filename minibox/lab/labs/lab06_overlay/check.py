"""Lab 6: an overlay, and an image made of its layers."""

from __future__ import annotations

import os
from stat import S_ISCHR

from minibox.lab.images import read_image
from minibox.lab.look import Machine
from minibox.lab.requirement import require

BASE = {"etc/motd": b"welcome\n", "etc/name": b"base\n", "data/old1": b"1\n", "data/old2": b"2\n", "bin/tool": b"v1\n"}
APP = {"etc/name": b"app\n", "app/main": b"main\n"}
IMAGE, SCRATCH = "/lab/image", "/scratch"


def check(machine: Machine) -> None:
    for name, wanted in (("base", BASE), ("app", APP)):
        found = _files(machine.path(f"/layers/{name}"))
        changed = sorted(each for each in {*found, *wanted} if found.get(each) != wanted.get(each))
        require(not changed, f"the layer itself has changed: /layers/{name}/{changed[0] if changed else ''}")
    upper = _check_overlay(machine)
    merged = _files(machine.path("/merged"))
    _check_changes(merged, machine, upper)
    _check_image(machine, merged)


def _check_overlay(machine: Machine) -> str:
    mounts = [each for each in machine.init.within().mounts if each.point == "/merged"]
    require(mounts, "nothing is mounted on /merged in the machine")
    mount = mounts[-1]
    require(mount.fs_type == "overlay", f"what is mounted on /merged is {mount.fs_type}, not overlay")
    options = dict(option.partition("=")[::2] for option in mount.super_options)
    said = options.get("upperdir", "")
    require(said, "the overlay on /merged has no upperdir, so nothing can be written to it")
    upper = os.path.normpath(said)
    if not os.path.isabs(upper):  # the kernel keeps what mount was told, and doesn't say where that was
        upper = _below(machine, SCRATCH, upper)
    require(upper.startswith(f"{SCRATCH}/"), f"the upperdir is {said}, not a directory below {SCRATCH}")
    return upper


def _below(machine: Machine, top: str, relative: str) -> str:
    """Find a directory below ``top`` by the end of its path; "" if there is none."""
    above = machine.path(top)
    for parent, _, _ in os.walk(above):
        found = os.path.normpath(os.path.join(parent, relative))
        if os.path.isdir(found) and found.startswith(f"{above}/"):
            return f"{top}/{os.path.relpath(found, above)}"
    return ""


def _check_changes(merged: dict[str, bytes], machine: Machine, upper: str) -> None:
    require(
        "app/main" in merged and "bin/tool" in merged,
        "/merged lacks files of a layer: lowerdir names both, with a colon",
    )
    require(
        merged.get("etc/name") == b"app\n",
        "/merged/etc/name is the one of base: in lowerdir the topmost layer comes first",
    )
    require("etc/motd" not in merged, "/merged/etc/motd is still there")
    try:
        found = os.lstat(machine.path(f"{upper}/etc/motd"))
        is_whiteout = S_ISCHR(found.st_mode) and found.st_rdev == 0
    except OSError:
        is_whiteout = False
    require(is_whiteout, f"{upper}/etc/motd is no whiteout: remove the file through /merged")
    require(merged["bin/tool"] == b"v2\n", f"/merged/bin/tool holds {merged['bin/tool']!r}, not b'v2\\n'")
    data = sorted(name for name in merged if name.startswith("data/"))
    require(data == ["data/new"], f"/merged/data holds {', '.join(data) or 'nothing'}, not only `new`")


def _check_image(machine: Machine, merged: dict[str, bytes]) -> None:
    require(os.path.isdir(machine.path(IMAGE)), f"there is no directory {IMAGE}")
    image = read_image(machine.path(IMAGE), IMAGE)
    require(len(image.layers) == 3, f"{IMAGE} has {len(image.layers)} layers, not 3")
    for number, (name, wanted) in enumerate((("base", BASE), ("app", APP)), 1):
        content = {path: data for path, data in image.layers[number - 1].items() if data is not None}
        require(
            content == wanted, f"layer {number} of {IMAGE} does not hold the files of /layers/{name}: {sorted(content)}"
        )
    stacked = image.files()
    for each in sorted({*stacked, *merged}):
        require(
            each in merged,
            f"{IMAGE} has {each}, which is not in /merged: a whiteout (.wh.) is missing in its last layer",
        )
        require(each in stacked, f"{IMAGE} lacks {each}, which is in /merged")
        require(stacked[each] == merged[each], f"{each} has another content in {IMAGE} than in /merged")


def _files(directory: str) -> dict[str, bytes]:
    found = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, directory)] = file.read()
    return found
