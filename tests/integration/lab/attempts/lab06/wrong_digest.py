# missing: minibox can't read the image

import hashlib
import io
import json
import os
import shutil
import signal
import stat
import tarfile

from minibox.linux import mount

LOWER = "/layers/app:/layers/base"

for name in ("upper", "work"):
    os.makedirs(f"/scratch/{name}")
mount("overlay", "/merged", "overlay", 0, f"lowerdir={LOWER},upperdir=/scratch/upper,workdir=/scratch/work,userxattr")

os.unlink("/merged/etc/motd")
with open("/merged/bin/tool", "w") as file:
    file.write("v2\n")
shutil.rmtree("/merged/data")
os.mkdir("/merged/data")
open("/merged/data/new", "w").close()

shutil.rmtree("/lab/image", ignore_errors=True)
os.makedirs("/lab/image/blobs/sha256")


def blob(data: bytes, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    with open(f"/lab/image/blobs/sha256/{digest}", "wb") as file:
        data += b" "
        file.write(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def is_whiteout(path: str) -> bool:
    found = os.lstat(path)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, "user.overlay.opaque") == b"y"
    except OSError:
        return False


def layer(directory: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for parent, directories, names in os.walk(directory):
            inside = os.path.relpath(parent, directory)
            if is_opaque(parent):
                archive.addfile(tarfile.TarInfo(f"{inside}/.wh..wh..opq"))
            for name in sorted(directories + names):
                path = os.path.join(parent, name)
                if is_whiteout(path):
                    archive.addfile(tarfile.TarInfo(os.path.normpath(f"{inside}/.wh.{name}")))
                else:
                    archive.add(path, os.path.normpath(f"{inside}/{name}"), recursive=False)
    return packed.getvalue()


layers = [blob(layer(path), "layer.v1.tar") for path in ("/layers/base", "/layers/app", "/scratch/upper")]
machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
rootfs = {"type": "layers", "diff_ids": [each["digest"] for each in layers]}
config = {"architecture": machine, "os": "linux", "config": {"Cmd": ["/bin/tool"]}, "rootfs": rootfs}
manifest = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": blob(json.dumps(config).encode(), "config.v1+json"),
    "layers": layers,
}
named = {
    **blob(json.dumps(manifest).encode(), "manifest.v1+json"),
    "annotations": {"org.opencontainers.image.ref.name": "mine"},
}
with open("/lab/image/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [named]}, file)
with open("/lab/image/oci-layout", "w") as file:
    json.dump({"imageLayoutVersion": "1.0.0"}, file)

print("ready")
signal.pause()
