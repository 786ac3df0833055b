"""Commands on images as users see them: names, ids, lists, removal; what is given back, and what never is taken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minibox.base.home import Home
from minibox.engine.upkeep import images as engine
from minibox.errors import StoreBusy
from minibox.image.layout.layout import Layout
from minibox.image.store import ImageStore
from tests import images, isolation
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root")

ROOT = "root"


@pytest.fixture
def store(state: Path) -> Path:
    """The state root; `base` in it has been run, as far as other commands know."""
    return state / ROOT


def lines(text: str) -> list[list[str]]:
    """The cells of a table."""
    return [re.split(r" {3,}", line.rstrip()) for line in text.splitlines()]


def image_id(minibox, name: str) -> str:
    return (
        minibox("inspect", "--type", "image", "-f", "{{.Id}}", name, check=True).stdout.strip().removeprefix("sha256:")
    )


def du(path: Path) -> int:
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1", str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])


def blobs_and_layers(store: Path) -> int:
    return du(store / "images") + du(store / "layers")


def derived(store: Path, name: str, *words: str, size: int = 100_000) -> str:
    """`base` with a layer of a file that is the same for the same words."""
    content = b"".join(word.encode() * (size // len(word)) for word in words)
    return images.derive(
        store, name, images.file(f"{words[0]}.txt", content), config={"Labels": {"words": " ".join(words)}}
    )


# ---- lists, names, ids --------------------------------------------------------------------------


def test_images_are_listed_as_docker_does(minibox, store):
    derived(store, "app:1", "one")
    listed = lines(minibox("images", check=True).stdout)
    assert listed[0] == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert sorted(row[:2] for row in listed[1:]) == [["app", "1"], ["base", "latest"]]
    assert all(re.fullmatch(r"[0-9a-f]{12}", row[2]) and re.fullmatch(r"[\d.]+[kM]B", row[4]) for row in listed[1:])
    assert minibox("image", "ls").stdout == minibox("images").stdout
    assert lines(minibox("images", "app").stdout)[1:] == [row for row in listed if row[0] == "app"]
    assert minibox("images", "-q", "app").stdout.strip() == image_id(minibox, "app:1")[:12]
    full = minibox("images", "--no-trunc", "--digests", "--format", "{{.ID}} {{.Digest}}", "app").stdout
    assert re.fullmatch(r"sha256:[0-9a-f]{64} sha256:[0-9a-f]{64}\n", full)
    rows = json.loads(minibox("images", "--json").stdout)
    assert {row["name"] for row in rows} == {"app:1", "base:latest"} and all(row["size_bytes"] > 0 for row in rows)
    (row,) = [json.loads(line) for line in minibox("images", "--format", "json", "app").stdout.splitlines()]
    assert (row["Repository"], row["Tag"], row["Containers"]) == ("app", "1", "0")


def test_a_name_that_moves_leaves_an_image_without_one(minibox, store):
    derived(store, "app:1", "one")
    first = image_id(minibox, "app:1")
    derived(store, "app:1", "two")
    dangling = lines(minibox("images", "--filter", "dangling=true").stdout)[1:]
    assert [row[:3] for row in dangling] == [["<none>", "<none>", first[:12]]]
    assert minibox("run", "--rm", "--network", "none", first[:12], "cat", "/one.txt").stdout.startswith("oneone")
    minibox("tag", first[:12], "old", check=True)
    assert minibox("images", "-q", "--filter", "dangling=true").stdout == ""
    assert minibox("image", "inspect", "-f", "{{.RepoTags}}", first[:12]).stdout == "[old:latest]\n"


def test_a_command_takes_a_name_a_digest_or_an_id(minibox, store):
    derived(store, "team/app:1", "one")
    whole = image_id(minibox, "team/app:1")
    digest = minibox("images", "--digests", "--format", "{{.Digest}}", "team/app").stdout.strip()
    for reference in ("team/app:1", whole, f"sha256:{whole}", whole[:12], whole[:6], digest, f"team/app@{digest}"):
        assert image_id(minibox, reference) == whole, reference
        assert minibox("run", "--rm", "--network", "none", reference, "true").returncode == 0, reference
    for reference, words in (("nope", "no container and no image 'nope'"), ("f" * 64, "no container and no image")):
        done = minibox("inspect", reference)
        assert (done.returncode, done.stdout) == (125, "[]\n") and words in done.stderr


def test_rmi_takes_a_name_then_the_image(minibox, store):
    derived(store, "app:1", "one")
    minibox("tag", "app:1", "app:2", check=True)
    whole, layer = (
        image_id(minibox, "app:1"),
        minibox("inspect", "-f", "{{index .RootFS.Layers 0}}", "base").stdout.strip(),
    )
    minibox("run", "--rm", "--network", "none", "app:1", "true", check=True)
    assert minibox("rmi", "app:1").stdout == "Untagged: app:1\n"
    done = minibox("rmi", "app:2", "app:3")
    untagged, deleted, *chain = done.stdout.splitlines()
    assert (untagged, deleted) == ("Untagged: app:2", f"Deleted: sha256:{whole}")
    assert len(chain) == 1 and chain[0] != f"Deleted: {layer}"  # what base has too stays
    assert done.returncode == 125 and done.stderr.startswith("minibox: image 'app:3' is not in the store")
    assert minibox("run", "--rm", "--network", "none", "base", "true").returncode == 0
    assert len(list((store / "layers").iterdir())) == 1


def test_rmi_by_id_of_several_names_wants_force(minibox, store):
    derived(store, "app:1", "one")
    minibox("tag", "app:1", "other:2", check=True)
    short = image_id(minibox, "app:1")[:12]
    done = minibox("rmi", short)
    assert done.returncode == 125 and done.stdout == ""
    assert f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple" in done.stderr
    assert "app:1, other:2" in done.stderr
    assert minibox("rmi", "-f", short).stdout.splitlines()[:2] == ["Untagged: app:1", "Untagged: other:2"]
    assert minibox("images", "-q", "app").stdout == ""


def test_an_image_that_a_container_uses_is_kept_for_it(minibox, store):
    derived(store, "app:1", "one")
    minibox("run", "--network", "none", "--name", "ended", "app:1", "true", check=True)
    whole = image_id(minibox, "app:1")
    done = minibox("rmi", "app:1")
    assert done.returncode == 125
    assert "conflict: unable to remove repository reference 'app:1' (must force) - container" in done.stderr
    done = minibox("rmi", whole[:12])
    assert f"conflict: unable to delete {whole[:12]} (must be forced) - image is being used by stopped" in done.stderr
    layers = set((store / "layers").iterdir())
    assert minibox("rmi", "-f", "app:1").stdout == f"Untagged: app:1\nDeleted: sha256:{whole}\n"
    assert "untagged: base:latest" in minibox("image", "prune", "-af").stdout
    assert set((store / "layers").iterdir()) == layers and (store / "images/blobs/sha256" / whole).exists()
    assert "nothing damaged, nothing left over" in minibox("system", "check").stdout
    assert minibox("commit", "ended", "again").returncode == 0
    minibox("rmi", "again", check=True)
    minibox("rm", "ended", check=True)
    minibox("image", "prune", "-f", check=True)
    assert list((store / "layers").iterdir()) == []


def test_an_image_in_use_now_can_only_lose_its_name(minibox, minibox_command, environment, store):
    with running(minibox_command, environment, "--network", "none", script="echo ready"):
        whole = image_id(minibox, "base")
        listed = lines(minibox("ps").stdout)
        assert listed[1][1] == "base" and listed[1][2].startswith('"sh -c echo ready')
        done = minibox("rmi", "-f", whole[:12])
        assert done.returncode == 125 and "(cannot be forced) - image is being used by running container" in done.stderr
        assert minibox("rmi", "-f", "base").stdout == "Untagged: base:latest\n"
        assert minibox("image", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
        assert len(list((store / "layers").iterdir())) == 1
    assert f"deleted: sha256:{whole}" in minibox("image", "prune", "-f").stdout
    assert list((store / "layers").iterdir()) == [] == list((store / "images/blobs/sha256").iterdir())


def test_history_and_inspect(minibox, store):
    derived(store, "app:1", "one")
    rows = lines(minibox("history", "app:1").stdout)
    assert rows[0] == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"] and len(rows) == 3
    assert rows[1][0] == image_id(minibox, "app:1")[:12] and rows[2][0] == "<missing>"
    assert minibox("history", "--human=false", "--format", "{{.Size}}", "app:1").stdout.split()[0].isdigit()
    (found,) = json.loads(minibox("inspect", "app:1").stdout)
    assert found["RepoTags"] == ["app:1"] and found["Config"]["Labels"] == {"words": "one"}
    assert found["Architecture"] and len(found["RootFS"]["Layers"]) == 2
    minibox("run", "--network", "none", "--name", "web", "-m", "64m", "-l", "a=b", "app:1", "sh", "-c", "exit 3")
    form = "{{.Name}} {{.State.Status}} {{.State.ExitCode}} {{.Config.Labels.a}} {{.HostConfig.Memory}} {{.Path}} {{.Args}}"
    assert minibox("inspect", "-f", form, "web").stdout == "/web exited 3 b 67108864 sh [-c exit 3]\n"
    assert minibox("inspect", "-f", "{{.Image}}", "web").stdout.strip() == found["Id"]
    assert int(minibox("inspect", "-s", "-f", "{{.SizeRw}}", "web").stdout) > 0
    assert minibox("inspect", "--type", "image", "web").returncode == 125
    done = minibox("inspect", "-f", "{{.State.Nope}}", "web")
    assert done.returncode == 125 and "template: 1:3: at <.State.Nope>: can't evaluate field Nope" in done.stderr


def test_search_by_word_and_by_file(minibox, store):
    derived(store, "team/app:1", "needle")
    derived(store, "other:1", "hay")
    for image in ("team/app:1", "other:1"):
        minibox("run", "--rm", "--network", "none", image, "true", check=True)
    assert [row[0] for row in lines(minibox("search-local", "TEAM").stdout)[1:]] == ["team/app:1"]
    assert lines(minibox("search-local", "needle").stdout)[1][2] == "words=needle"
    assert [row[0] for row in lines(minibox("search-local", "--file", "/needle.txt").stdout)[1:]] == ["team/app:1"]
    assert minibox("search-local", "--file", "/bin/s?", "--format", "{{.Name}}").stdout.count("\n") == 3
    assert lines(minibox("search-local", "--file", "/nothing/*").stdout) == [["NAME", "IMAGE ID", "MATCH"]]
    assert minibox("search-local").returncode == 125


# ---- what it takes, and giving it back ----------------------------------------------------------


def shares(minibox) -> dict[str, dict[str, int]]:
    return {each["type"]: each for each in json.loads(minibox("system", "df", "--json").stdout)["shares"]}


def test_size_is_that_of_the_files_wherever_it_is_told(minibox, store):
    """As Docker's: not with the blobs that they came as, and the same unpacked or not."""
    derived(store, "packed", "one", size=300_000)
    derived(store, "run", "two", size=500_000)
    minibox("run", "--rm", "--network", "none", "run", "true", check=True)
    (base,) = [row for row in json.loads(minibox("images", "--json").stdout) if row["name"] == "base:latest"]
    for name, size in (("packed", 300_000), ("run", 500_000 - 500_000 % 3)):
        size = base["size_bytes"] + size
        (row,) = json.loads(minibox("images", "--json", name).stdout)
        assert (row["size_bytes"], row["shared_bytes"]) == (size, base["size_bytes"])
        assert int(minibox("image", "inspect", "-f", "{{.Size}}", name).stdout) == size
        told = json.loads(minibox("system", "df", "--json").stdout)["images"]
        assert [each["size_bytes"] for each in told if each["name"] == f"{name}:latest"] == [size]
        sizes = minibox("history", "--human=false", "--format", "{{.Size}}", name).stdout.split()
        assert sum(map(int, sizes)) == size
    assert shares(minibox)["Images"]["size_bytes"] == base["size_bytes"] + 300_000 + 500_000 - 500_000 % 3
    assert shares(minibox)["Image Blobs"]["size_bytes"] == pytest.approx(du(store / "images/blobs"), abs=3 * 4096)


def test_prune_gives_back_what_it_and_df_say(minibox, store):
    for name, words in (("one", ["a", "x"]), ("two", ["b", "x"]), ("three", ["c", "y"])):
        derived(store, name, *words)
        minibox("run", "--rm", "--network", "none", name, "true", check=True)
    derived(store, "three", "d", "z")
    before = shares(minibox)
    images = json.loads(minibox("system", "df", "--json").stdout)["images"]
    unique = {row["name"]: row["unique_bytes"] for row in images}
    shared = {row["name"]: row["shared_bytes"] for row in images}
    assert before["Images"]["total"] == 5
    assert all(before[kind]["reclaimable_bytes"] == before[kind]["size_bytes"] for kind in ("Images", "Image Blobs"))
    assert unique["base:latest"] == 0 and len({shared["one:latest"], shared["two:latest"], shared[""]}) == 1
    assert unique["one:latest"] == unique[""] == 200_000
    slack = 3 * 4096  # directories shrink, index.json is written anew

    removed = (
        (minibox, "image", "prune", "--force"),
        (minibox, "rmi", "one"),
        (minibox, "image", "prune", "-a", "--force"),
    )
    for run, *words in removed:
        before, taken = shares(run), blobs_and_layers(store)
        done = run(*words)
        after, freed = shares(run), taken - blobs_and_layers(store)
        gone = {kind: before[kind]["size_bytes"] - after[kind]["size_bytes"] for kind in ("Images", "Image Blobs")}
        assert abs(freed - sum(gone.values())) < 100 * 4096  # files take whole blocks, and their holes none
        if "--force" in words:
            assert "Deleted Images:\n" in done.stdout
            number, unit = re.findall(r"^Total reclaimed space: ([\d.]+)([kM]?B)$", done.stdout, re.MULTILINE)[0]
            assert abs(freed - float(number) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]) < slack + freed / 1000
        if "-a" not in words:
            assert gone["Images"] == 200_000
    assert after["Images"]["size_bytes"] == 0


def test_prune_asks_and_takes_no_for_an_answer(minibox, store):
    derived(store, "app", "one")
    derived(store, "app", "two")
    for answer in ("n\n", "", "\n"):
        done = minibox("image", "prune", input=answer)
        assert done.stdout.startswith(
            "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] "
        )
        assert done.returncode == 1
    assert len(lines(minibox("images").stdout)) == 4
    done = minibox("image", "prune", input="y\n")
    assert done.returncode == 0 and "Total reclaimed space: " in done.stdout
    assert len(lines(minibox("images").stdout)) == 3


def test_an_image_without_a_date_is_as_old_as_it_is_in_the_store(minibox, store):
    derived(store, "undated", "one")
    derived(store, "old", "two")
    blob = store / "images/blobs/sha256" / minibox("images", "-q", "--no-trunc", "old").stdout.strip()[7:]
    for command in (("system", "prune"), ("image", "prune")):
        done = minibox(*command, "--all", "--force", "--filter", "until=240h")
        assert done.stdout == "Total reclaimed space: 0B\n"
    os.utime(blob, (0, time.time() - 11 * 86400))
    assert minibox("images", "--format", "{{.Repository}}", "--filter", "until=240h").stdout == "old\n"
    assert "old" in minibox("images", "--format", "{{.Repository}}", "--filter", "before=undated").stdout
    done = minibox("system", "prune", "--all", "--force", "--filter", "until=240h")
    assert "untagged: old:latest" in done.stdout and "undated" not in done.stdout
    blob = store / "images/blobs/sha256" / minibox("images", "-q", "--no-trunc", "undated").stdout.strip()[7:]
    os.utime(blob, (0, 0))  # as of one that was removed, and came again before its blobs had gone
    assert minibox("images", "-q", "--filter", "until=240h").stdout == ""
    assert set(minibox("images", "--format", "{{.Repository}}").stdout.split()) == {"undated", "base"}
    refused = minibox("system", "prune", "--all", "--volumes", "--force", "--filter", "until=240h")
    assert refused.returncode == 125 and "until can't be applied to volumes" in refused.stderr


def test_an_image_of_1970_is_as_old_as_it_is_in_the_store(minibox, store):
    """As reproducible builds date theirs."""
    for number, created in enumerate(("1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z")):
        derived(store, f"app{number}", "one", str(number))
        layout = ImageStore(str(store)).layout
        image = ImageStore(str(store)).resolve(f"app{number}")
        config = layout.write_json({**image.config, "created": created}, "application/vnd.oci.image.config.v1+json")
        manifest = {**layout.read_json(image.digest), "config": config}
        layout.set_name(f"docker.io/library/app{number}:latest", layout.write_json(manifest, manifest["mediaType"]))
    assert minibox("images", "--filter", "until=1h", "-q").stdout == ""
    minibox("image", "prune", "--all", "--force", "--filter", "until=1h", check=True)
    assert {"app0", "app1"} <= set(minibox("images", "--format", "{{.Repository}}").stdout.split())


def test_system_prune_takes_unused_networks_and_lists_what_it_takes(minibox, store):
    for name, more in (("unused", ()), ("kept", ("--label", "keep")), ("used", ()), ("later", ())):
        minibox("network", "create", *more, name, check=True)
    minibox("create", "--network", "used", "--name", "made", "base", "true", check=True)
    asked = minibox("system", "prune", "--filter", "label!=keep", input="n\n").stdout
    assert "  - all networks not used by at least one container\n" in asked
    assert "  Items to be pruned will be filtered with:\n  - label!=keep\n" in asked
    young = minibox("system", "prune", "--force", "--filter", "until=1h")
    assert young.stdout == "Total reclaimed space: 0B\n"
    minibox("start", "-a", "made", check=True)
    done = minibox("system", "prune", "--force", "--filter", "label!=keep")
    assert "Deleted Networks:\nlater\nunused\nused\n" in done.stdout
    assert minibox("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").stdout == "kept\n"
    minibox("network", "rm", "kept", check=True)


def test_system_prune_takes_ended_containers_too(minibox, store):
    minibox(
        "run", "--network", "none", "--name", "ended", "base", "sh", "-c", "head -c 300000 /dev/zero > /x", check=True
    )
    (store / "tmp").mkdir(exist_ok=True)
    (store / "tmp/abc.partial").write_bytes(b"x" * 50_000)
    rows = {row[0]: row for row in lines(minibox("system", "df").stdout)}
    assert rows["Containers"][1:3] == ["1", "0"] and rows["Images"][1:3] == ["1", "1"]
    (row,) = [line for line in minibox("system", "df", "-v").stdout.splitlines() if line.endswith(" ended")]
    assert " ago " in row and " Exited (0) " in row
    before = du(store)
    done = minibox("system", "prune", "--all", "--force")
    assert done.stdout.startswith("Deleted Containers:\n") and "untagged: base:latest" in done.stdout
    assert before - du(store) > 300_000 + 50_000
    assert minibox("ps", "-aq").stdout == minibox("images", "-q").stdout == ""
    assert list((store / "tmp").iterdir()) == []


# ---- while others are at work -------------------------------------------------------------------


def test_no_start_fails_for_a_layer_that_prune_took(minibox, minibox_command, environment, store):
    """Eight start containers of `base`, which is made anew when it is gone, while all images are pruned in a loop."""

    def prune() -> bool:
        done = minibox("image", "prune", "--all", "--force")
        assert done.returncode == 0, done.stderr
        return "deleted: " in done.stdout

    start = [*minibox_command, "run", "--rm", "--network", "none", "base", "true"]
    output = subprocess.PIPE
    for _ in range(6):
        starters = [
            subprocess.Popen(start, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)
            for _ in range(8)
        ]
        pruned = False
        while any(each.poll() is None for each in starters):
            pruned |= prune()
        said = [(each.communicate()[0], each.returncode) for each in starters]
        assert said == 8 * [("", 0)]
        assert prune() or pruned
    assert "nothing damaged" in minibox("system", "check").stdout


PRUNE_WITHIN = """
import sys
from minibox.base.home import Home
from minibox.cli.main import main
from minibox.engine.files import rootfs_setup
from minibox.engine.state import claim
from minibox.engine.upkeep import images
from minibox.image.store import ImageStore

owner, name = {"resolve": (ImageStore, "resolve"), "claim": (claim.Claim, "__init__"),
               "record": (claim.Claim, "note_image"), "look": (ImageStore, "is_unchanged"),
               "unpack": (rootfs_setup, "unpack")}[sys.argv[1]]
real, left = getattr(owner, name), [1]

def step(*args, **kwargs):
    result = real(*args, **kwargs)
    if left.pop() if left else 0:
        images.prune(Home(*sys.argv[2:4]), everything=True)
    return result

setattr(owner, name, step)
sys.exit(main(["run", "--rm", "--network", "none", "base", "echo", "ok"]))
"""


@pytest.mark.parametrize("step", ["resolve", "claim", "record", "look", "unpack"])
def test_a_start_gets_its_layers_whenever_all_images_are_pruned(minibox, environment, store, step):
    words = [sys.executable, "-c", PRUNE_WITHIN, step, environment["MINIBOX_ROOT"], environment["MINIBOX_RUNROOT"]]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60 * SLOWNESS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    # Pruned before the record, `base` was made anew; after it, only its name went, and what is left goes now.
    minibox("image", "prune", "-af", check=True)
    assert minibox("images", "-q").stdout == "" and list((store / "layers").iterdir()) == []
    assert "nothing damaged" in minibox("system", "check").stdout


def test_a_killed_prune_is_finished_by_the_next(minibox, minibox_command, environment, store):
    for delay_s in (0.09, 0.13, 0.17, 0.21, 0.25):
        for name in ("one", "two", "three"):
            derived(store, name, name, size=3_000_000)
            minibox("run", "--rm", "--network", "none", name, "true", check=True)
        prune = subprocess.Popen(
            [*minibox_command, "image", "prune", "-af"], env=environment, stdout=subprocess.DEVNULL
        )
        time.sleep(delay_s)
        prune.send_signal(signal.SIGKILL)
        prune.wait()
        done = minibox("system", "check")
        assert done.returncode == 0 and "nothing damaged" in done.stdout, done.stdout
        assert minibox("run", "--rm", "--network", "none", "base", "true").returncode == 0
    done = minibox("image", "prune", "-af")
    assert done.returncode == 0, done.stderr
    assert list((store / "images/blobs/sha256").iterdir()) == list((store / "layers").iterdir()) == []
    left = json.loads(minibox("system", "check", "--json").stdout)["findings"]
    assert [each for each in left if not each["what"].startswith("tmp/")] == []  # of index.json: swept after a minute


def test_a_removal_waits_for_who_adds_and_says_when_it_was_in_vain(minibox, state, store, monkeypatch):
    derived(store, "app", "one")
    run = str(state / "run")
    monkeypatch.setattr(engine, "PATIENCE_S", 0.2)
    with Layout(str(store)).adding():
        with pytest.raises(StoreBusy, match="images are being pulled"):
            engine.prune(Home(str(store), run), everything=True)
        assert len(lines(minibox("images").stdout)) == 3
        removed = engine.remove(Home(str(store), run), "app")
        assert removed.deferred and removed.freed_bytes == 0 and len(removed.deleted) == 1
    assert engine.prune(Home(str(store), run)).freed_bytes > 0
    assert minibox("system", "check").stdout.endswith("nothing damaged, nothing left over\n")


@requires("user")
def test_an_ordinary_user_removes_what_belongs_to_ids_that_he_has_inside_only(minibox_user, user_state):
    root = user_state / "root"
    images.derive(
        root, "app", images.directory("closed", mode=0o000), images.file("closed/x", b"x" * 50_000, uid=70, gid=70)
    )
    for path in (root / "images").rglob("*"):
        os.chown(path, isolation.USER_ID, isolation.USER_ID)
    assert minibox_user("run", "--rm", "--network", "none", "app", "true").returncode == 0
    assert minibox_user("system", "check").stdout.endswith("nothing damaged, nothing left over\n")
    (row,) = json.loads(minibox_user("images", "--json", "app").stdout)
    assert row["unique_bytes"] == 50_000
    assert "Deleted: " in minibox_user("rmi", "app").stdout
    assert len(list((root / "layers").iterdir())) == 1
    assert minibox_user("image", "prune", "-af").returncode == 0
    assert list((root / "layers").iterdir()) == []


@pytest.mark.parametrize("driver", ["copy", "erofs"])
def test_layers_of_other_drivers_are_counted_and_collected(minibox, store, driver):
    derived(store, "app", "one")
    ran = minibox("--storage-driver", driver, "run", "--rm", "--network", "none", "app", "true")
    if ran.returncode:
        pytest.skip(ran.stderr)
    assert number_of_layers(store / driver) == 2
    assert minibox("system", "check").stdout.endswith("nothing damaged, nothing left over\n")
    before = du(store / driver)
    unique = json.loads(minibox("images", "--json", "app").stdout)[0]["unique_bytes"]
    minibox("rmi", "app", check=True)
    assert number_of_layers(store / driver) == 1 and unique <= before - du(store / driver) < 3 * unique
    minibox("image", "prune", "-af", check=True)
    assert list((store / driver).iterdir()) == list((store / "layers").iterdir()) == []


def number_of_layers(directory: Path) -> int:
    return len([path for path in directory.iterdir() if path.suffix != ".bytes"])  # a note of copy and btrfs
