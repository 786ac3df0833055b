"""`--cache-to` and `--cache-from`: what another machine reuses, what it fetches for that, and how it is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading

import pytest

from tests.container_box import until
from tests.integration.build.conftest import Builder
from tests.integration.build.remote_caches import (
    ONE,
    Machines,
    build,
    fetched,
    listed,
    machines,
    of,
    reused,
    root_machines,
    to,
)
from tests.probes import requires
from tests.registries import (
    Answer,
    FakeRegistry,
    Request,
)

__all__ = ["machines", "root_machines"]

CONFIG_LINES = "ENV A=1\nLABEL b=2\n"
TEXT = """\
FROM base AS one
RUN cat /proc/sys/kernel/random/uuid > /one
RUN true
FROM base
RUN cat /proc/sys/kernel/random/uuid > /random
COPY a /a
RUN cat /a > /copied
COPY --from=one /one /one
"""
LINES = 6


# ---- what is reused ---------------------------------------------------------------------------------


def test_another_machine_reuses_every_line_and_makes_the_same_image(machines: Machines, registry: FakeRegistry) -> None:
    here, there = machines(), machines()
    here.file("a", "a")
    build(here, TEXT, *to(registry))
    assert len(listed(registry)["lines"]) == LINES
    lines = build(there, TEXT, *of(registry))
    assert reused(lines) == LINES
    assert any(f"reused from Dockerfile:2 in the cache {registry.host}/app:cache, made " in line for line in lines), (
        lines
    )
    assert there.image()["Id"] == here.image()["Id"]
    assert there.sh("cat /random /copied /one") == here.sh("cat /random /copied /one")
    layers = json.loads(registry.manifests["app/cache"][1])["layers"]
    assert len(layers) == LINES - 2  # `RUN true` has written nothing, and the last line what the first has
    assert fetched(registry) == {each["digest"] for each in layers}
    build(there, TEXT, *of(registry))
    assert fetched(registry) == set()


def test_only_what_is_really_used_is_fetched(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    here.file("a", "a")
    build(here, TEXT, *to(registry))
    registry.requests.clear()
    there.file("a", "another")
    lines = build(there, TEXT, *of(registry))
    assert reused(lines) == 3, lines
    assert any("it was never built before; the cache" in line and "doesn't have it" in line for line in lines)
    assert len(fetched(registry)) == 2  # the RUN of each stage; `RUN true` has no layer
    assert there.sh("cat /copied") == "another"
    assert there.sh("cat /random") == here.sh("cat /random")


def test_config_lines_count_only_where_they_are_read(root_machines: Machines, registry: FakeRegistry) -> None:
    here = root_machines()
    text = "FROM base\n{}RUN cat /proc/sys/kernel/random/uuid > /random\nCMD echo\n"
    build(here, text.format("ENV A=1\nLABEL l=1\n"), *to(registry, "min"))
    assert reused(build(root_machines(), text.format("ENV A=1\nLABEL l=2\n"), *of(registry))) == 1
    assert reused(build(root_machines(), text.format("ENV A=2\nLABEL l=1\n"), *of(registry))) == 0


def test_min_has_the_lines_of_the_image_only(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    here.file("a", "a")
    build(here, TEXT, *to(registry, "min"), *to(registry, "max", "all"))
    assert len(listed(registry)["lines"]) == 4 and len(listed(registry, "all")["lines"]) == LINES
    lines = build(there, TEXT, *of(registry))
    assert reused(lines) == 3  # /one is another there, and so is what is copied of it
    assert there.sh("cat /one") != here.sh("cat /one")


def test_what_came_from_a_cache_is_pruned_like_other_lines(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    here.file("a", "a")
    before = {path: set(os.listdir(there.box.directory / path)) for path in ("root/images/blobs/sha256", "root/layers")}
    build(here, TEXT, *to(registry))
    build(there, TEXT, *of(registry), *to(registry))
    for builder in (here, there):
        builder.box.ok("rmi", "-f", "built")
        builder.box.ok("builder", "prune", "--force", "--all")
        for path, names in before.items():
            assert set(os.listdir(builder.box.directory / path)) == names, path


def test_several_caches_and_one_that_is_not_there(root_machines: Machines, registry: FakeRegistry) -> None:
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /{}\n"
    here, there = root_machines(), root_machines()
    build(here, text.format("x"), *to(registry, tag="x"))
    build(here, text.format("y"), *to(registry, tag="y"))
    froms = of(registry, "no"), of(registry, "x"), ("--cache-from", f"type=registry,ref={registry.host}/app:y")
    lines = build(there, text.format("y"), *(word for each in froms for word in each))
    assert reused(lines) == 1
    assert any(f"there is no cache {registry.host}/app:no" in line for line in lines)
    registry.close()
    lines = build(root_machines(), text.format("y"), *of(registry, "y"))
    assert any(f"the cache {registry.host}/app:y can't be used" in line for line in lines)


def test_what_came_from_a_cache_goes_on_to_the_next(root_machines: Machines, registry: FakeRegistry) -> None:
    first, second, third = (root_machines() for _ in range(3))
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /random\n"
    build(first, text, *to(registry))
    longer = text + "RUN cat /random > /copy\nRUN --mount=type=bind,from=0,target=/m cat /m/copy > /mounted\n"
    longer = longer.replace("FROM base", "FROM base AS lower", 1).replace("from=0", "from=lower")
    longer = longer.replace("RUN --mount", "FROM lower\nRUN --mount")
    assert reused(build(second, longer, *of(registry), *to(registry, tag="next"))) == 1
    lines = build(third, longer, *of(registry, "next"))
    assert reused(lines) == 3
    assert third.image()["Id"] == second.image()["Id"]
    assert reused(build(first, longer, *of(registry, "next"))) == 2  # it has made the first line itself
    assert first.sh("cat /mounted") == third.sh("cat /random")


def test_a_layer_fits_only_on_the_files_that_it_was_made_on(root_machines: Machines, registry: FakeRegistry) -> None:
    """Otherwise an image would have the first line of one machine with what another machine made of its own."""
    here, there = root_machines(), root_machines()
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /random\n"
    longer = text + "RUN cat /random > /copy\n"
    build(there, text)
    build(here, longer, *to(registry))
    assert reused(build(there, longer, *of(registry))) == 0
    assert there.sh("cat /random") == there.sh("cat /copy")
    build(here, longer, "--no-cache", *to(registry))
    fresh = root_machines()
    assert reused(build(fresh, longer, *of(registry))) == 2
    assert fresh.sh("cat /random /copy") == here.sh("cat /random /copy")


def test_only_builds_that_name_a_cache_use_what_came_from_it(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /random\nRUN cat /random > /copy\n"
    build(here, text, *to(registry))
    build(there, text, *of(registry))
    lines = build(there, text)
    assert any(f"the last build had it from the cache {registry.host}/app:cache" in line for line in lines), lines
    assert there.sh("cat /copy") == there.sh("cat /random") != here.sh("cat /random")


def test_secrets_are_in_no_cache(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    text = "FROM base\nRUN --mount=type=secret,id=s cat /proc/sys/kernel/random/uuid > /random\n"
    here.file("s", "the-secret-value")
    build(here, text, *to(registry), "--secret", f"id=s,src={here.context}/s")
    there.file("s", "another-value")
    assert reused(build(there, text, *of(registry), "--secret", f"id=s,src={there.context}/s")) == 1
    sent = [data for _, data in registry.manifests.values()] + list(registry.blobs.values())
    assert sent and not any(b"the-secret" in each for each in sent)
    assert {name for each in listed(registry)["lines"] for name in each} == {"key", "parent", "made", "madeBy", "layer"}


def test_platforms_share_one_cache(root_machines: Machines, registry: FakeRegistry) -> None:
    text = "FROM --platform=$BUILDPLATFORM base\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n"
    words = "--platform", "linux/amd64,linux/arm64"
    build(root_machines(), text, *words, *to(registry))
    assert len(listed(registry)["lines"]) == 2
    assert reused(build(root_machines(), text, *words, *of(registry))) == 2


def test_only_files_are_wanted(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    text = "FROM base AS maker\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM scratch\nCOPY --from=maker /one /\n"
    build(here, text, "-o", str(here.context / "out"), *to(registry))
    first = (here.context / "out/one").read_text()
    assert reused(build(there, text, "-o", str(there.context / "again"), *of(registry))) == 2
    assert (there.context / "again/one").read_text() == first


def test_a_directory_is_a_cache_too(machines: Machines) -> None:
    here, there = machines(), machines()
    here.file("a", "a")
    where = here.box.directory / "cache"
    build(here, TEXT, "--cache-to", f"type=local,dest={where},mode=max")
    assert json.loads((where / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert reused(build(there, TEXT, "--cache-from", f"type=local,src={where}")) == LINES
    assert there.image()["Id"] == here.image()["Id"]
    build(here, TEXT, "--cache-to", f"type=local,dest={where},mode=min")  # replaces it
    assert len(list((where / "blobs/sha256").glob(".*"))) == 0
    for each in (where / "blobs/sha256").iterdir():
        if each.read_bytes()[:1] != b"{":
            each.write_bytes(b"damaged")
    lines = build(machines(), TEXT, "--cache-from", f"type=local,src={where}")
    assert reused(lines) == 0 and any("is damaged: it has another size or digest" in line for line in lines)
    for each in (where / "blobs/sha256").iterdir():
        each.write_bytes(bytes(each.stat().st_size))
    build(here, TEXT, "--cache-to", f"type=local,dest={where},mode=max")  # puts it right
    assert reused(build(machines(), TEXT, "--cache-from", f"type=local,src={where}")) == LINES
    shutil.rmtree(where)
    lines = build(machines(), TEXT, "--cache-from", f"type=local,src={where}")
    assert any(f"there is no cache {where}" in line for line in lines)


@requires("command:mkfs.erofs")
def test_machines_with_other_storage_drivers_share_it(root_machines: Machines) -> None:
    here = root_machines()
    text = """\
FROM base AS one
RUN rm /bin/vi && mkdir -p /etc/x && chown 5:6 /etc/x && chmod 4711 /etc/x
RUN rm -r /etc/x && mkdir /etc/x && echo 2 > /etc/x/y && ln /etc/x/y /etc/x/z && mkfifo /etc/x/p
FROM scratch
COPY Dockerfile /a
COPY --from=one /etc/x /x
"""
    first = here.box.directory / "cache"
    build(here, text, "--cache-to", f"type=local,dest={first},mode=max")
    for driver in ("copy", "erofs"):
        there = root_machines(driver)
        again = there.box.directory / "cache"
        to = ("--cache-to", f"type=local,dest={again},mode=max")
        assert reused(build(there, text, "--cache-from", f"type=local,src={first}", *to)) == 4
        assert (again / "index.json").read_bytes() == (first / "index.json").read_bytes()
        assert there.image()["Id"] == here.image()["Id"]


def test_a_cache_does_not_tell_where_the_dockerfile_lay(root_machines: Machines, registry: FakeRegistry) -> None:
    here = root_machines()
    path = here.file("secret-project/web.Dockerfile", ONE)
    build(here, ONE, *to(registry), "-f", str(path))
    assert [each["madeBy"] for each in listed(registry)["lines"]] == ["web.Dockerfile:2"]


# ---- writing -----------------------------------------------------------------------------------------


def test_the_same_lines_give_the_same_cache(root_machines: Machines, registry: FakeRegistry) -> None:
    here = root_machines()
    build(here, ONE, *to(registry))
    first = registry.manifests["app/cache"][1]
    build(here, ONE, *to(registry))
    assert registry.manifests["app/cache"][1] == first


def test_a_registry_that_refuses_fails_the_build_unless_told_otherwise(
    root_machines: Machines, registry: FakeRegistry
) -> None:
    here = root_machines()
    registry.rule("PUT /v2/app/manifests/", Answer(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}'))
    assert f"write the cache {registry.host}/app:cache" in here.refused(ONE, "--network", "none", *to(registry))
    where = f"type=registry,ref={registry.host}/app:cache,ignore-error=true"
    lines = build(here, ONE, "--cache-to", where)
    assert any(f"the cache {registry.host}/app:cache isn't written: " in line and "read only" in line for line in lines)


def begin(builder: Builder, command: list[str], environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    argv = [*command, "build", "--network", "none", "-t", "built", *words, str(builder.context)]
    own = {"MINIBOX_ROOT": f"{builder.box.directory}/root", "MINIBOX_RUNROOT": f"{builder.box.directory}/run"}
    return subprocess.Popen(argv, env={**environment, **own}, stderr=subprocess.PIPE, text=True)


def test_one_that_is_killed_while_it_writes_leaves_the_old_cache(
    root_machines: Machines, registry: FakeRegistry, minibox_command: list[str], environment: dict[str, str]
) -> None:
    here, there = root_machines(), root_machines()
    build(here, ONE, *to(registry))
    old = registry.manifests["app/cache"]
    here.file("Dockerfile", ONE + "RUN cat /random > /copy\n")
    asked = "PUT /v2/app/blobs/uploads/"
    registry.requests.clear()
    registry.rule(asked, Answer(200, bytes(9), cut_after=1), times=1 << 20)
    process = begin(here, minibox_command, environment, *to(registry))
    try:
        until(lambda: registry.asked(asked), "it is writing")
    finally:
        process.kill()
        process.communicate()
    registry.rules.pop()
    assert registry.manifests["app/cache"] == old
    assert reused(build(there, ONE, *of(registry))) == 1
    build(here, ONE + "RUN cat /random > /copy\n", *to(registry))
    assert len(listed(registry)["lines"]) == 2


@pytest.mark.parametrize("stalls", ["manifests", "blobs"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_one_that_ends_while_it_reads_leaves_nothing(
    root_machines: Machines,
    registry: FakeRegistry,
    minibox_command: list[str],
    environment: dict[str, str],
    stalls: str,
    number: int,
) -> None:
    here, there = root_machines(), root_machines()
    build(here, ONE, *to(registry))
    layer = json.loads(registry.manifests["app/cache"][1])["layers"][0]["digest"]
    stalled, asked = threading.Event(), f"GET /v2/app/{stalls}/{layer if stalls == 'blobs' else 'cache'}"

    def stall(request: Request) -> None:
        stalled.wait()

    registry.requests.clear()
    registry.rule(asked, stall)
    process = begin(there, minibox_command, environment, *of(registry))
    try:
        until(lambda: registry.asked(asked), "it waits for the registry")
        process.send_signal(number)
        process.communicate()
    finally:
        process.kill()
        stalled.set()
    registry.rules.pop()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert reused(build(there, ONE, *of(registry))) == 1
    assert there.sh("cat /random") == here.sh("cat /random")
    root = there.box.directory / "root"
    assert not [each for each in (root / "layers").iterdir() if each.name.startswith("unfinished")]
    assert not any((root / "containers").iterdir()) and not list((root / "build/lines").glob("*/*.lock"))


def test_of_two_writers_one_wins_as_a_whole(
    root_machines: Machines, registry: FakeRegistry, minibox_command: list[str], environment: dict[str, str]
) -> None:
    here, there = root_machines(), root_machines()
    here.file("Dockerfile", ONE)
    writers = [begin(each, minibox_command, environment, *to(registry)) for each in (here, there)]
    assert [(each.communicate()[1], each.returncode)[1] for each in writers] == [0, 0]
    third = root_machines()
    assert reused(build(third, ONE, *of(registry))) == 1
    assert third.sh("cat /random") in (here.sh("cat /random"), there.sh("cat /random"))


def test_what_is_not_there_is_refused_by_name(root_machines: Machines) -> None:
    here = root_machines()
    for words, says in (
        (("--cache-to", "type=gha"), "type gha is not supported"),
        (("--cache-from", "type=s3,bucket=x"), "type s3 is not supported"),
        (("--cache-to", "type=inline"), "type inline is not supported"),
        (("--cache-to", "type=registry"), "it needs ref="),
        (("--cache-to", "type=registry,ref=x,compression=zstd"), "has no option 'compression'"),
        (("--cache-to", "type=registry,ref=x,mode=all"), "unknown mode 'all'"),
        (("--cache-from", "type=registry,ref=No/Ref"), "--cache-from"),
        (("--cache-to", f"x@sha256:{64 * '0'}"), "to a tag, not to a digest"),
        (("--cache-from", "src=x"), "--cache-from src=x: it needs type="),
        (("--cache-to", "type=,dest=x"), "it needs type="),
        (("--cache-to", "type=tar,dest=x"), "unknown type 'tar'"),
    ):
        done = here.run("FROM base\n", *words)
        assert done.returncode == 125 and says in done.stderr, done
