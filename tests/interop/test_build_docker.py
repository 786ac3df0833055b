"""The same Dockerfiles built by Docker's BuildKit and by minibox: config, history and files are the same."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.engines import IMAGE, Docker, busybox_archive, docker
from tests.probes import requires

pytestmark = requires("root", "command:dockerd", "command:containerd", "command:iptables", "command:busybox")

FILES = (
    "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path /etc ! -path / "
    "! -name mtab ! -name resolv.conf ! -name hosts ! -name hostname ! -name .dockerenv | sort | "
    'while read f; do stat -c \'%n %f %u:%g\' "$f"; test -L "$f" && readlink "$f"; test -f "$f" && md5sum < "$f"; done; true'
)
#: Docker's fields of containers, and a mark for Windows.
ONLY_DOCKERS = {
    "ArgsEscaped", "AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "OpenStdin",
    "StdinOnce", "Tty",
}  # fmt: skip
DOCKERFILES = {
    "config": """\
FROM bb
ARG V=1
ARG NOTHING
ENV A=b C="d e" E=${V:-x}${NOTHING:+y}
RUN echo $A $V > /x
WORKDIR /app/
USER 7:8
WORKDIR of/user
EXPOSE 80 53/udp
VOLUME /data /more
LABEL one=1 two="2 3"
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-e", "-c"]
ENTRYPOINT ["cat"]
CMD /app/a
MAINTAINER me
""",
    "copies": """\
FROM bb
WORKDIR /w/deep
COPY a d ./
COPY --chown=3:4 d /to/
COPY d/*.sh /scripts/
COPY a /renamed
ADD archive.tar /unpacked
ADD a /w/
RUN ln -s /w /link && mkdir /old && touch /old/1 /old/2
COPY d /link/
RUN rm /old/1 && chmod 700 /old && mv /old/2 /old/3
""",
    "stages": """\
FROM bb AS one
ARG X=1
ENV Y=2
RUN mkdir /out && echo $X$Y > /out/f && chmod 4711 /out/f && ln -s f /out/l
FROM one AS two
RUN echo $X$Y > /inherited
FROM bb
COPY --from=two /inherited /
COPY --from=one /out /copied
COPY --from=0 /out/f /copied/again
""",
    "scratch": 'FROM scratch\nCOPY --from=bb /bin /bin\nCOPY d /d\nENV A=1\nRUN ["/bin/touch", "/made"]\nCMD ["sh"]\n',
}


@pytest.fixture(scope="module")
def archive(session_directory: Path) -> Path:
    return busybox_archive(session_directory / "bb.tar")


@pytest.fixture(scope="module")
def engine(session_directory: Path, archive: Path) -> Iterator[Docker]:
    with docker(session_directory / "build-docker", archive, DOCKER_BUILDKIT="1") as found:
        yield found


@pytest.fixture
def context(state: Path) -> Path:
    made = state / "context"
    for name, mode in (("a", 0o644), ("d/x.sh", 0o755), ("d/sub/y", 0o600), ("d/z", 0o640)):
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    (made / "d/link").symlink_to("z")
    with tarfile.open(made / "archive.tar", "w") as tar:
        tar.add(made / "d", "inside", filter=owned)
    return made


def test_an_image_without_layers_is_like_dockers(engine: Docker, state: Path, minibox: Run) -> None:
    (state / "Dockerfile").write_text('FROM scratch\nENV A=1\nLABEL kind=config\nCMD ["/none"]\n')
    engine("build", "-t", "config", state, timeout_s=300)
    theirs = json.loads(engine.out("inspect", "config"))[0]
    done = minibox("build", "-t", "config", str(state))
    assert done.returncode == 0, done.stderr
    assert config(json.loads(minibox("image", "inspect", "config").stdout)[0]) == config(theirs)
    engine("rmi", "config")  # which Docker 20.10 can't save: "empty export - not implemented"
    assert minibox("save", "-o", str(state / "ours.tar"), "config").returncode == 0
    engine("load", "-i", state / "ours.tar")
    assert config(json.loads(engine.out("inspect", "config"))[0]) == config(theirs)
    ran = engine("run", "--rm", "--network", "none", "config", status=None)
    assert (ran.returncode, minibox("run", "--rm", "config").returncode) == (127, 127), ran


def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file of an archive, with an owner of its own."""
    member.uid, member.gid, member.uname, member.gname = 11, 12, "", ""
    return member


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_like_dockers(name: str, engine: Docker, archive: Path, context: Path, minibox: Run) -> None:
    (context / "Dockerfile").write_text(DOCKERFILES[name])
    engine("build", "--network", "none", "-t", "built", context, timeout_s=300)
    theirs = json.loads(engine.out("inspect", "built"))[0]
    assert minibox("import", "-c", 'CMD ["sh"]', str(archive), IMAGE).returncode == 0
    done = minibox("build", "--network", "none", "-t", "built", str(context))
    assert done.returncode == 0, done.stderr
    ours = json.loads(minibox("image", "inspect", "built").stdout)[0]
    assert config(ours) == config(theirs)
    assert history(minibox("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built").stdout) == history(
        engine.out("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built")
    )
    words = ("--rm", "--network", "none", "--user", "0", "--entrypoint", "/bin/sh", "built", "-c", FILES)
    listed = minibox("run", *words)
    assert listed.stdout.splitlines() == engine.out("run", *words).splitlines()


def config(document: dict[str, Any]) -> dict[str, Any]:
    """The execution part of the config, without empty values and what only Docker has."""
    found = {key: value for key, value in document["Config"].items() if value and key not in ONLY_DOCKERS}
    found["Env"] = sorted(found.get("Env", ()))
    return found


def history(text: str) -> list[str]:
    """The texts of the lines, without the base's. Docker 20.10 leaves out --chown, which newer ones write."""
    text = re.sub(r" --(chown|chmod)=\S+", "", text)
    return [line for line in text.splitlines() if line.split(" ")[0] in KEYWORDS and not line.startswith("IMPORT")]


KEYWORDS = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "MAINTAINER", "RUN", "SHELL",
            "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}  # fmt: skip
