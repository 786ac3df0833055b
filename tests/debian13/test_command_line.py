"""Command lines of `docker build` 26.1 and `minibox build`: what the one takes, the other takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.engines import IMAGE, Client, Docker
from tests.probes import requires

pytestmark = requires("root", "command:mmdebstrap", "command:iptables", "command:busybox")

DOCKERFILE = """\
FROM bb AS one
ARG V
RUN echo "$V" > /v
FROM scratch AS two
COPY --from=one /v /
LABEL a=b
"""
COMMAND_LINES = """
.
-t web -t web:1 -t registry.example/web:2 .
-t=web -f=Dockerfile .
-t WEB .
-t a:b:c .
-f sub/Dockerfile .
-f nope .
-f sub .
nope
Dockerfile
. sub
-q .
-q=false .
--pull=false --no-cache=true --force-rm --rm .
--progress plain .
--progress quiet .
--progress nope .
--target one .
--target ONE .
--target nope .
--target 0 .
--build-arg V=1 .
--build-arg V .
--build-arg =1 .
--label a=b --label c .
--label =b .
--annotation a=b .
--annotation manifest:a=b .
--annotation x:a=b .
--annotation a .
--platform linux/amd64 .
--platform local .
--platform nope .
--network none .
--network host .
--network nope .
--add-host a:1.2.3.4 .
--add-host a=1.2.3.4 .
--add-host a:::1 .
--add-host a .
--ulimit nofile=512:600 .
--ulimit nofile .
--ulimit nope=1 .
--shm-size 32m .
--shm-size x .
--secret id=s,src=Dockerfile .
--secret type=file,id=s,source=Dockerfile .
--secret id=s,env=PATH .
--secret id=s,src=nope .
--secret src=Dockerfile .
--secret id=s,x=y .
--secret s .
--ssh default .
--ssh default=/nope .
--build-context x=sub .
--build-context x=nope .
--build-context x .
--no-cache-filter one,two .
--no-cache-filter nope .
--iidfile nope/id .
--output type=tar .
--output type=tar,dest=- .
--output - .
--output type=local .
--output type=nope,dest=out .
--output type=image,name=web .
--load .
--push .
--provenance=false --sbom=false .
--provenance=true .
--allow network.host .
--allow security.insecure .
--allow nope .
""".strip().split("\n")
#: Where they differ, and why.
DIFFERENT = {
    "--target 0 .": "Docker 20.10 took a stage's number as well",
}


@pytest.fixture
def context(state: Path) -> Path:
    made = state / "context"
    (made / "sub").mkdir(parents=True)
    for path in (made, made / "sub"):
        (path / "Dockerfile").write_text(DOCKERFILE)
    return made


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_line_is_taken_by_both_or_by_none(
    line: str, engine: Docker, archive: Path, context: Path, minibox: Run
) -> None:
    assert minibox("import", "-c", 'CMD ["sh"]', str(archive), IMAGE).returncode == 0
    words = line.split()
    there = ("sh", "-c", 'cd "$0" && exec docker build "$@"', context)
    theirs = Client([*engine.command[:-1], *map(str, there)], engine.environment)(*words, status=None)
    ours = minibox("build", *words, cwd=str(context))
    taken = (theirs.returncode == 0) != (ours.returncode == 0)
    assert taken == (line in DIFFERENT), f"docker: {theirs.stderr[-500:]}\nminibox: {ours.stderr[-500:]}"
