# missing: which come from the machine

import json
import os
import shutil
import sys
import tarfile
import tempfile
from typing import Any

from minibox.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    capset,
    clone,
    drop_bounding,
    mount,
    no_new_privs,
    pivot_root,
    sethostname,
    umount,
)
from minibox.linux.capabilities import DEFAULT

NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC


def blob_path(layout: str, digest: str) -> str:
    kind, _, name = digest.partition(":")
    return f"{layout}/blobs/{kind}/{name}"


def read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def apply_whiteouts(archive: tarfile.TarFile, root: str) -> None:
    for name in archive.getnames():
        parent, last = os.path.split(f"{root}/{name}")
        if last == ".wh..wh..opq":
            for entry in os.listdir(parent) if os.path.isdir(parent) else ():
                remove(f"{parent}/{entry}")
        elif last.startswith(".wh."):
            remove(f"{parent}/{last.removeprefix('.wh.')}")


def unpack(path: str, root: str) -> None:
    with tarfile.open(path) as archive:
        apply_whiteouts(archive, root)
        for entry in archive:
            if not os.path.basename(entry.name).startswith(".wh."):
                remove_file(f"{root}/{entry.name}")
                archive.extract(entry, root)


def remove_file(path: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        os.unlink(path)


def enter_root(root: str) -> None:
    mount("", "/", flags=MS_PRIVATE | MS_REC)
    mount(root, root, flags=MS_BIND)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(root)
    pivot_root(".", ".")
    umount(".", MNT_DETACH)
    os.chdir("/")


def give_up_privileges() -> None:
    drop_bounding(keep=DEFAULT)
    no_new_privs()
    capset(DEFAULT, DEFAULT, [])


def main(layout: str, *command: str) -> int:
    index = read_json(f"{layout}/index.json")
    manifest = read_json(blob_path(layout, index["manifests"][0]["digest"]))
    config = read_json(blob_path(layout, manifest["config"]["digest"]))["config"]
    root = tempfile.mkdtemp(prefix="container-")
    for layer in manifest["layers"]:
        unpack(blob_path(layout, layer["digest"]), root)

    def container() -> None:
        sethostname("container")
        enter_root(root)
        give_up_privileges()
        os.chdir(config.get("WorkingDir") or "/")
        environment = {**os.environ, **dict(entry.split("=", 1) for entry in config.get("Env", ()))}
        os.execvpe(command[0], command, environment)

    pid = clone(container, NAMESPACES)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


sys.exit(main(*sys.argv[1:]))
