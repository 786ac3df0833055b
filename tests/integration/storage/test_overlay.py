"""Layers as the kernel's overlayfs reads them, and what is removed when a container goes."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _cffi_backend
import pytest

from minibox.errors import StoreError, Unsupported
from minibox.image.archive.importer import add_image
from minibox.image.store import ImageStore
from minibox.linux.mount_table import file_system_type
from minibox.linux.removal import remove_tree
from minibox.storage.overlay import Overlay, why_unsuitable
from minibox.storage.snapshot import layers_in_use, read_record
from tests.images import lowers, prepared
from tests.probes import requires
from tests.unit.layers import directory, entry, hard_link, symlink, tar

CHECKOUT = Path(__file__).parents[3]
LAYER = "sha256:" + "a" * 64


@pytest.fixture
def root(session_directory, tmp_path_factory):
    """A state root on a file system that can hold an upperdir."""
    path = session_directory / tmp_path_factory.mktemp("overlay").name
    path.mkdir(exist_ok=True)
    yield str(path)
    remove_tree(str(path))


@pytest.fixture
def store(root):
    return ImageStore(root)


def three_layers(store):
    return add_image(
        store.layout,
        "stack",
        [
            tar(
                [
                    directory("./"),
                    directory("etc"),
                    entry("etc/kept", content=b"1"),
                    entry("etc/changed", content=b"1"),
                    entry("removed", content=b"1"),
                    directory("emptied"),
                    entry("emptied/old", content=b"1"),
                    directory("replaced"),
                    entry("replaced/old", content=b"1"),
                ]
            ),
            tar([entry(".wh.removed"), entry("emptied/.wh..wh..opq"), entry("emptied/new", content=b"2")]),
            tar(
                [
                    directory("etc", 0o711),
                    entry("etc/changed", content=b"3", uid=1234, gid=5678, mode=0o4755),
                    entry(".wh.replaced"),
                    directory("replaced"),
                    entry("replaced/new", content=b"3"),
                    symlink("link", "etc/changed"),
                    hard_link("hard", "etc/changed"),
                ]
            ),
        ],
        {"Cmd": ["sh"]},
    )


def in_overlay(snapshot, script, option=""):
    """The output of a shell script in a mount namespace of its own, in the mounted overlay."""
    lower = ":".join(snapshot.lowers)
    options = f"lowerdir={lower},upperdir={snapshot.upper},workdir={os.path.dirname(snapshot.upper)}/work{option}"
    mount = f"mount -t overlay overlay -o {shlex.quote(options)} /mnt && cd /mnt && {script}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.kernel
@requires("root")
@pytest.mark.parametrize("option", ["", ",userxattr"])
def test_stacked_layers_show_what_the_image_means(store, root, option):
    image = three_layers(store)
    snapshot = prepared(store, store.resolve("stack"), "c1")
    assert len(snapshot.lowers) == len(image.chain_ids) == 3
    seen = in_overlay(
        snapshot,
        "find . -mindepth 1 | sort; cat etc/changed; stat -c '%a %u:%g' etc/changed etc; readlink link; echo x > etc/w",
        option,
    ).split("\n")
    assert seen[:9] == [
        "./emptied", "./emptied/new", "./etc", "./etc/changed", "./etc/kept", "./hard", "./link", "./replaced",
        "./replaced/new",
    ]  # fmt: skip
    assert seen[9:12] == ["34755 1234:5678", "711 0:0", "etc/changed"]
    assert os.listdir(f"{snapshot.upper}/etc") == ["w"]
    Overlay(root).remove("c1")
    assert os.listdir(f"{root}/containers") == []


@pytest.mark.kernel
@requires("root")
def test_device_nodes_and_file_capabilities_arrive_for_root(store, root):
    import tarfile

    capability = b"\x01\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_bind_service=ep, VFS_CAP_REVISION_2
    headers = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    add_image(store.layout, "nodes", [tar([
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("tool", content=b"x", uid=7, mode=0o755, pax_headers=headers),
    ])])  # fmt: skip
    (path,) = lowers(store, store.resolve("nodes"))
    status = os.stat(f"{path}/null")
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3) and status.st_mode & 0o777 == 0o666
    assert os.getxattr(f"{path}/tool", "security.capability") == capability
    assert os.stat(f"{path}/tool").st_uid == 7


@pytest.fixture
def as_user(session_directory, root):
    """Runs Python code as an ordinary user who owns the state root: ``as_user(code, *prefix)``; its output."""
    from tests import isolation

    os.chown(root, isolation.USER_ID, isolation.USER_ID)
    copies = session_directory / "images-as-user"
    if not copies.exists():
        copies.mkdir()
        backend = str(_cffi_backend.__file__)  # the one library that minibox._native can't do without
        subprocess.run(["cp", "-rL", f"{CHECKOUT}/minibox", f"{CHECKOUT}/tests", backend, copies], check=True)

    def run(code, *prefix):
        done = subprocess.run(
            [*prefix, os.path.realpath(sys.executable), "-c", code, root],
            capture_output=True, text=True, user=isolation.USER_ID, group=isolation.USER_ID, extra_groups=[], cwd="/",
            env={"PYTHONPATH": str(copies), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@requires("user")
def test_ordinary_user_unpacks_what_root_owns(as_user):
    from tests import isolation

    upper, lower = as_user("""
import sys
from minibox.image.store import ImageStore
from tests.images import prepared
store = ImageStore(sys.argv[1])
snapshot = prepared(store, store.resolve("base"), "c")
print(snapshot.upper, *snapshot.lowers)
""").split()
    assert os.stat(upper).st_uid == os.stat(f"{lower}/etc/passwd").st_uid == isolation.USER_ID
    assert subprocess.run([f"{lower}/bin/busybox", "echo", "hi"], capture_output=True).stdout == b"hi\n"


@pytest.mark.kernel
@requires("user")
def test_ordinary_users_layers_stack_in_a_user_namespace_and_go(as_user, root):
    """With a single-id map, as when the user has no range in /etc/subuid."""
    prepare = """
import sys
from minibox.image.store import ImageStore
from minibox.image.archive.importer import add_image
from tests.images import lowers, prepared
from tests.unit.layers import directory, entry, tar
store = ImageStore(sys.argv[1])
image = add_image(store.layout, "stack", [
    tar([entry("gone"), directory("d", 0o555), entry("d/old"), entry("kept", uid=77, mode=0)]),
    tar([entry(".wh.gone"), entry("d/.wh..wh..opq"), directory("d", 0o500), entry("d/new")]),
])
print(prepared(store, image, "c"))
"""
    as_user(prepare)
    mount = """
import os, subprocess, sys
from minibox.image.store import ImageStore
from tests.images import lowers
store = ImageStore(sys.argv[1])
path = sys.argv[1] + "/containers/c"
lower = ":".join(lowers(store, store.resolve("stack")))
options = f"userxattr,lowerdir={lower},upperdir={path}/upper,workdir={path}/work"
subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "/mnt"], check=True)
print(sorted(os.listdir("/mnt")), os.listdir("/mnt/d"))
os.unlink("/mnt/kept")
os.mkdir("/mnt/closed", 0)
"""
    seen = as_user(mount, "unshare", "--user", "--map-root-user", "--mount")
    assert seen == "['d', 'kept'] ['new']\n"
    assert (os.stat(f"{root}/containers/c/work/work").st_mode & 0o777) == 0, "what overlayfs leaves has changed"
    as_user("import sys; from minibox.storage.overlay import Overlay; Overlay(sys.argv[1]).remove('c')")
    assert os.listdir(f"{root}/containers") == []


@pytest.mark.kernel
@requires("user", "command:newuidmap")
def test_ordinary_user_with_a_range_of_ids_keeps_owners(as_user, root):
    """Unpacked inside a user namespace, as its root: an image's user 77 is a subordinate id on disk."""
    unpack = """
import sys
from minibox.image.store import ImageStore
from minibox.image.archive.importer import add_image
from tests.images import lowers, prepared
from tests.unit.layers import directory, entry, tar
store = ImageStore(sys.argv[1])
image = add_image(store.layout, "owned", [tar([entry("mine"), entry("theirs", uid=77, mode=0o600), directory("d", uid=77)])])
print(*prepared(store, image, "c").lowers)
"""
    namespace = ("unshare", "--map-root-user", "--map-auto", "--user")
    (path,) = as_user(unpack, *namespace).split()
    mine, theirs = os.stat(f"{path}/mine").st_uid, os.stat(f"{path}/theirs").st_uid
    assert theirs not in (mine, 77, 0)
    assert os.stat(f"{path}/d").st_uid == theirs
    as_user("import sys; from minibox.storage.overlay import Overlay; Overlay(sys.argv[1]).remove('c')", *namespace)
    too_large = unpack.replace("uid=77", "uid=3000000000").replace('"owned"', '"alien"').replace("mode=0o600", "gid=1")
    said = as_user(f"""
from minibox.errors import StoreError
try:
    exec({too_large!r})
except StoreError as error:
    print(error, error.hint)
""", *namespace)  # fmt: skip
    assert "'theirs' belongs to 3000000000:1, which the user namespace doesn't map" in said
    assert "/etc/subuid" in said


def test_base_made_by_many_at_once_is_one_image(root):
    code = (
        "import sys; from minibox.image.store import ImageStore; from tests.images import lowers\n"
        "store = ImageStore(sys.argv[1]); image = store.resolve('base'); print(image.digest, *lowers(store, image))"
    )
    with ThreadPoolExecutor(6) as pool:
        outputs = set(pool.map(lambda _: subprocess.run(
            [sys.executable, "-c", code, root], capture_output=True, text=True, check=True, cwd=CHECKOUT
        ).stdout, range(6)))  # fmt: skip
    assert len(outputs) == 1
    assert sorted(os.listdir(f"{root}/layers")) == [outputs.pop().split("/")[-2]]
    assert os.listdir(f"{root}/tmp") == []
    assert len(ImageStore(root).names()) == 1


@requires("root")
def test_killed_unpacking_is_collected(store, root):
    image = store.resolve("base")
    os.makedirs(f"{root}/layers/unfinished-{'0' * 64}/diff/half")
    lowers(store, image)
    assert [name for name in os.listdir(f"{root}/layers") if name.startswith("unfinished")] == []


@requires("root")
def test_full_disk_is_a_clear_error_and_leaves_nothing(root):
    script = f"""
mount -t tmpfs -o size=1500k tmpfs /mnt && exec {shlex.quote(sys.executable)} -c '
import os
from minibox.image.store import ImageStore
from minibox.errors import StoreError
try:
    ImageStore("/mnt/r").resolve("base")
except StoreError as error:
    print(error, error.hint, os.listdir("/mnt/r/tmp"), os.listdir("/mnt/r/images/blobs/sha256"))
'"""
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
        capture_output=True, text=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    assert "No space left on device (ENOSPC)" in done.stdout
    assert "free some space" in done.stdout
    assert done.stdout.endswith("[] []\n")


@requires("root")
def test_upper_on_overlayfs_is_refused_with_a_hint(store, root):
    image = three_layers(store)
    snapshot = prepared(store, image, "c1")
    script = f"""{shlex.quote(sys.executable)} -c '
import sys; sys.path.insert(0, "{CHECKOUT}")
from minibox.storage.overlay import Overlay
from minibox.errors import Unsupported
try:
    Overlay("/mnt/root").prepare("c", ("sha256:a",))
except Unsupported as error:
    print(error, error.hint)
'"""
    said = in_overlay(snapshot, script)
    assert "is on overlay, which can't be overlayfs's upperdir" in said
    assert "set --root to a directory on ext4, xfs or btrfs" in said


def test_file_system_type_is_what_the_kernel_calls_it(root):
    assert file_system_type("/proc/self") == "proc"
    assert file_system_type(root) == subprocess.check_output(
        ["findmnt", "-n", "-o", "FSTYPE", "--target", root], text=True
    ).strip()  # fmt: skip
    assert why_unsuitable(root) is None
    assert isinstance(why_unsuitable("/proc"), Unsupported | None)


def with_layer(root: str) -> Overlay:
    """A driver that has one layer, an empty one."""
    overlay = Overlay(root)
    os.makedirs(overlay.layer_path(LAYER), 0o755)
    return overlay


def test_snapshot_is_prepared_once_and_removed_however_it_looks(root):
    overlay = with_layer(root)
    before = os.umask(0o077)
    try:
        snapshot = overlay.prepare("c1", (LAYER,))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(snapshot.upper).st_mode) == 0o755
    with pytest.raises(StoreError, match="already"):
        overlay.prepare("c1", (LAYER,))
    os.makedirs(f"{os.path.dirname(snapshot.upper)}/work/work/inside")
    deep = snapshot.upper
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(2000):  # deeper than PATH_MAX, deeper than Python recurses
        os.mkdir("deep", dir_fd=descriptor)
        inner = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    Path(snapshot.upper, "closed/in").mkdir(parents=True)
    Path(snapshot.upper, "closed/in/file").write_text("x")
    os.symlink("/etc", f"{snapshot.upper}/etc")
    Path(os.fsencode(snapshot.upper).decode(), "\udcff-name").write_text("x")
    os.chmod(f"{snapshot.upper}/closed", 0)
    os.chmod(f"{os.path.dirname(snapshot.upper)}/work/work", 0)
    overlay.remove("c1")
    assert os.listdir(f"{root}/containers") == []
    assert os.path.exists("/etc/passwd")
    overlay.remove("c1")
    for key in ("", ".", "..", "a/b", "../../etc"):
        with pytest.raises(StoreError):
            overlay.remove(key)


@requires("root", "command:chattr")
def test_what_a_container_made_immutable_is_removed(root):
    overlay = with_layer(root)
    snapshot = overlay.prepare("c1", (LAYER,))
    for name in "ia":
        os.mkdir(f"{snapshot.upper}/{name}")
        Path(snapshot.upper, name, "f").write_text("x")
        for path in (f"{snapshot.upper}/{name}/f", f"{snapshot.upper}/{name}"):
            subprocess.run(["chattr", f"+{name}", path], check=True)
    with pytest.raises(OSError):
        os.unlink(f"{snapshot.upper}/i/f")
    overlay.remove("c1")
    assert os.listdir(f"{root}/containers") == []


def test_a_container_says_which_layers_it_stands_on(root):
    chain_ids = ("sha256:" + "b" * 64, LAYER)
    with_layer(root).prepare("c1", chain_ids)
    assert read_record(root, "c1") == ("overlay", chain_ids)
    assert layers_in_use(root) == {("overlay", chain_id) for chain_id in chain_ids}
    Overlay(root).remove("c1")
    assert read_record(root, "c1") is None
    assert layers_in_use(root) == set()
    with pytest.raises(StoreError):
        read_record(root, "..")


@requires("root")
def test_layers_are_listed_measured_and_removed(store, root):
    overlay = Overlay(root)
    image = three_layers(store)
    lowers(store, image)
    assert sorted(overlay.layers()) == sorted(image.chain_ids)
    for chain_id in image.chain_ids:
        before = disk_bytes(root)
        assert overlay.layer_bytes(chain_id) > 0
        freed = overlay.layer_bytes(chain_id)
        overlay.remove_layer(chain_id)
        assert before - disk_bytes(root) == freed
    assert overlay.layers() == [] and not overlay.is_unpacked(image.chain_ids)
    overlay.remove_layer(image.chain_ids[0])
    os.makedirs(f"{root}/layers/removed-{'0' * 64}/diff")
    overlay.remove_layer(LAYER)
    assert os.listdir(f"{root}/layers") == []


def disk_bytes(path):
    return int(subprocess.check_output(["du", "-s", "-B1", path], text=True).split()[0])
