"""The ten projects of tests/projects as Docker 26.1's BuildKit, buildah 1.39 and minibox make them: files, config, history.

minibox builds them as root, and as an ordinary user. Six are on Debian and install from the network: that takes half an
hour. MINIBOX_DEBIAN is an archive of the image debian:12, where there is one already.
"""

from __future__ import annotations

import functools
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import pytest

from tests.debian13.builders import TIMEOUT_S, Built, WithBuildah, WithDocker, WithMinibox, lines_of
from tests.engines import Client, Docker
from tests.isolation import USER_ID, USER_NAME
from tests.probes import requires
from tests.projects.project import PROJECTS, Buildah, compare, compare_config
from tests.projects.test_projects import MAKE, ON_DEBIAN

pytestmark = requires("root", "user", "internet", "command:mmdebstrap", "command:busybox")

ON_BUSYBOX = ("database", "heredocs", "onbuild", "static-site")
WITHOUT_NETWORK = ("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
#: With --layers buildah makes WORKDIR's directory when the next COPY or RUN wants it: for the owner that a COPY
#: --chown names; and if it is the last line, not at all. Without --layers it is like ours.
BUILDAHS = {"python-web": {"srv/web"}, "capable-tool": {"home/tool"}}
Build = Callable[[str], Built]


@pytest.fixture(scope="session")
def outside(host_netns: str) -> tuple[str, ...]:
    """The words that start a program where the internet is."""
    return ("nsenter", f"--net={host_netns}")


@pytest.fixture(scope="session")
def words(place: Path) -> Callable[[str], tuple[object, ...]]:
    """The words of a project's build: its options, and its context, where all builders see it."""
    shutil.copytree(PROJECTS, place / "projects")
    found = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    certificates = Path(shutil.copy(found or os.devnull, place / "certificates.crt"))
    certificates.chmod(0o644)

    def of(name: str) -> tuple[object, ...]:
        secret = ("--secret", f"id=certificates,src={certificates}")
        return (*(("--build-arg", "BASE=bb") if name in ON_BUSYBOX else secret), place / "projects" / name)

    return of


@pytest.fixture(scope="session")
def root(place: Path, outside: tuple[str, ...], minibox_command: list[str]) -> Client:
    """`minibox` as root."""
    own = place / "minibox"
    own.mkdir()
    environment = {**os.environ, "MINIBOX_ROOT": f"{own}/root", "MINIBOX_RUNROOT": f"{own}/run", "TMPDIR": f"{own}"}
    return Client([*outside, *minibox_command], environment)


@pytest.fixture(scope="session")
def user(place: Path, outside: tuple[str, ...], user_command: list[str]) -> Client:
    """`minibox` as an ordinary user."""
    home = place / "home"
    for path in (home, home / "run"):
        path.mkdir(mode=0o700)
        os.chown(path, USER_ID, USER_ID)
    own = {"HOME": f"{home}", "USER": USER_NAME, "XDG_RUNTIME_DIR": f"{home}/run", "TMPDIR": f"{home}"}
    own |= {"MINIBOX_ROOT": f"{home}/root", "MINIBOX_RUNROOT": f"{home}/run"}
    as_user = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups")
    return Client([*outside, *as_user, *user_command], {**os.environ, **own}, cwd="/")


@pytest.fixture(scope="session")
def bases(place: Path, archive: Path, outside: tuple[str, ...], root: Client) -> list[Path]:
    """Archives of the images that projects start from."""
    root("import", "-c", 'CMD ["sh"]', archive, "bb")
    if given := os.environ.get("MINIBOX_DEBIAN"):
        root("load", "-i", given, timeout_s=TIMEOUT_S)
    else:
        subprocess.run([*outside, MAKE, "bookworm"], env=root.environment, check=True)
    saved = {name: place / f"{name.partition(':')[0]}-saved.tar" for name in ("bb", "debian:12")}
    for name, path in saved.items():
        root("save", "-o", path, name)
        path.chmod(0o644)
    return list(saved.values())


@pytest.fixture(scope="session")
def ours(root: Client, place: Path, words: Callable[[str], tuple[object, ...]], bases: list[Path]) -> Build:
    """What root's minibox makes of a project, once."""
    builder = WithMinibox(root, place / "minibox", ())
    return functools.cache(lambda name: builder.build(name, words(name)))


@pytest.fixture(scope="session")
def rootless(user: Client, place: Path, words: Callable[[str], tuple[object, ...]], bases: list[Path]) -> Build:
    builder = WithMinibox(user, place / "home", bases)
    return functools.cache(lambda name: builder.build(name, words(name)))


@pytest.fixture(scope="session")
def dockers(
    place: Path, outside: tuple[str, ...], enter: tuple[str, ...], words: Callable[[str], tuple[object, ...]], bases: list[Path]
) -> Iterator[Build]:  # fmt: skip
    engine = Docker(place / "docker-outside", *WITHOUT_NETWORK, enter=(*outside, *enter), oci="/usr/bin/runc")
    try:
        engine.daemon.start()
        builder = WithDocker(engine, place / "docker-outside", bases)
        yield functools.cache(lambda name: builder.build(name, words(name)))
    finally:
        engine.end()


@pytest.fixture(scope="session")
def buildahs(
    place: Path, outside: tuple[str, ...], enter: tuple[str, ...], words: Callable[[str], tuple[object, ...]], bases: list[Path]
) -> Iterator[Build]:  # fmt: skip
    own = place / "buildah-outside"
    with Buildah(own, (*outside, *enter), "overlay") as buildah:
        builder = WithBuildah(buildah, own, bases)
        yield functools.cache(lambda name: builder.build(name, words(name)))


@pytest.mark.parametrize("name", [*ON_BUSYBOX, *ON_DEBIAN])
def test_a_project_is_like_dockers(name: str, ours: Build, dockers: Build) -> None:
    compare_built(ours(name), dockers(name))
    assert ours(name).history == dockers(name).history


@pytest.mark.parametrize("name", [*ON_BUSYBOX, *ON_DEBIAN])
def test_a_project_is_like_buildahs(name: str, ours: Build, buildahs: Build) -> None:
    """But for the texts of the history, which are those of Docker's builder before BuildKit: their kinds are compared."""
    compare_built(ours(name), buildahs(name), but=BUILDAHS.get(name, set()))
    assert lines_of(ours(name).history) == lines_of(buildahs(name).history)


@pytest.mark.parametrize("name", [*ON_BUSYBOX, *ON_DEBIAN])
def test_a_project_is_the_same_for_an_ordinary_user(name: str, ours: Build, rootless: Build) -> None:
    compare_built(ours(name), rootless(name))
    assert ours(name).history == rootless(name).history


def compare_built(first: Built, second: Built, *, but: Set[str] = frozenset()) -> None:
    compare(first.files, second.files, but)
    compare_config(first.config, second.config)
