# /images/app: an OCI image layout of two layers. The first is the image that this machine was made of.
mkdir -p /run/image /images
mount --bind / /run/image
python3 - <<'PROGRAM'
import hashlib, io, json, os, tarfile

os.makedirs("/images/app/blobs/sha256")


def blob(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"/images/app/blobs/sha256/{digest}", "wb") as file:
        file.write(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def layer(fill):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        fill(archive)
    return packed.getvalue()


def add(archive, name, content=b""):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def base(archive):
    for name in sorted(os.listdir("/run/image")):
        if name in ("bin", "etc", "usr", "lib", "lib64", "sbin"):
            archive.add(f"/run/image/{name}", name)
    for name in ("proc", "dev", "tmp", "srv"):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
    add(archive, "etc/old", b"of base\n")
    add(archive, "etc/name", b"base\n")


def app(archive):
    add(archive, "etc/.wh.old")
    add(archive, "etc/name", b"app\n")
    add(archive, "srv/data", b"data of the app\n")


layers = [blob(layer(fill), "layer.v1.tar") for fill in (base, app)]
machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
config = {
    "architecture": machine, "os": "linux",
    "config": {"Env": ["PATH=/usr/bin:/bin", "APP=yes"], "WorkingDir": "/srv", "Cmd": ["/bin/sh"]},
    "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in layers]},
}
manifest = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": layers,
}
index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
for name, value in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
    with open(f"/images/app/{name}", "w") as file:
        json.dump(value, file)
PROGRAM
umount /run/image
