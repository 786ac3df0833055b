"""pytest plugin: fixtures that give each test a sandbox, and reports that show the sandboxes of failed tests.

pytest loads it wherever minibox is installed; ``-p no:minibox`` turns it off. It imports nothing of minibox until a
test uses a fixture. docs/embedding.md shows how to use it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, NoReturn, Protocol, Unpack

    from minibox import ContainerOptions, MiniboxError, Network, Sandbox, Snapshot
    from minibox.api.image_build import BuildKeywords
    from minibox.api.place import Place

    class Snapshots(Protocol):
        """The type of the fixture `minibox_snapshot`. Arguments and errors as for `minibox.api.prepared.prepared_image`."""

        def __call__(
            self,
            name: str,
            prepare: Callable[[Sandbox], object],
            /,
            image: str | None = None,
            *,
            key: str = "",
            **options: Unpack[ContainerOptions],
        ) -> str: ...


KEEP = ("none", "failed", "all")
LOG_CHARACTERS = 16 << 10  # how much of the end of a log a report shows
DIFF_LINES = 100
ID_DIGITS = 12

_failed = pytest.StashKey[bool]()
_factories = pytest.StashKey["list[SandboxFactory]"]()
_missing = pytest.StashKey[str]()


# ---- hooks ----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minibox", "sandboxes (minibox)")
    group.addoption("--minibox-image", metavar="IMAGE", help="the default image for sandboxes (default: base)")
    group.addoption(
        "--minibox-keep",
        choices=KEEP,
        default="none",
        help="keep the sandboxes of failed or of all tests, for `minibox shell ID` (default: none)",
    )
    group.addoption(
        "--minibox-missing",
        choices=("skip", "fail"),
        help="what to do with tests if this host can't run sandboxes: skip them (default), or fail them, as in CI",
    )
    parser.addini("minibox_image", "the default image for sandboxes", default="base")
    parser.addini("minibox_missing", "skip or fail tests if this host can't run sandboxes", default="skip")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "minibox(image=..., **options): options for the test's sandboxes: memory, network, disk and all other "
        "keywords of minibox.Sandbox",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo:
        _hide_our_frames(call.excinfo)
    report = yield
    if report.failed and call.when != "teardown":
        chain = item.listchain()
        for node in chain:
            node.stash[_failed] = True
        for factory in item.session.stash.get(_factories, []):
            if factory.node in chain:
                report.sections += factory.sections()
    return report


def _hide_our_frames(found: pytest.ExceptionInfo[BaseException]) -> None:
    """Hide minibox's own frames in the traceback of an error that it raises on purpose."""
    ours = os.path.dirname(__file__) + os.sep
    for entry in found.traceback:
        if str(entry.path).startswith(ours):
            entry.frame.f_globals["__tracebackhide__"] = _is_raised_on_purpose


def _is_raised_on_purpose(found: pytest.ExceptionInfo[BaseException] | None) -> bool:
    errors = sys.modules.get("minibox.errors")
    if found is None or errors is None:
        return False
    return isinstance(found.value, errors.MiniboxError) or type(found.value.__cause__).__name__ == "RemoteTraceback"


# ---- fixtures -------------------------------------------------------------------------------------


@pytest.fixture
def sandbox(sandbox_factory: SandboxFactory) -> Sandbox:
    """A new `minibox.Sandbox` for this test, with the options of the mark ``minibox``."""
    return sandbox_factory()


@pytest.fixture
def sandbox_factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    """Make sandboxes that end with this test: ``sandbox_factory("base", memory="64m")``."""
    yield from _factory(request)


@pytest.fixture(scope="class")
def class_sandbox_factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    """Like `sandbox_factory`; the sandboxes end with the class."""
    yield from _factory(request)


@pytest.fixture(scope="module")
def module_sandbox_factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    """Like `sandbox_factory`; the sandboxes end with the module."""
    yield from _factory(request)


@pytest.fixture(scope="package")
def package_sandbox_factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    """Like `sandbox_factory`; the sandboxes end with the package."""
    yield from _factory(request)


@pytest.fixture(scope="session")
def session_sandbox_factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    """Like `sandbox_factory`; the sandboxes end with the test run, or with this pytest-xdist worker."""
    yield from _factory(request)


@pytest.fixture(scope="session")
def minibox_snapshot(request: pytest.FixtureRequest) -> Snapshots:
    """Prepare an image once; each test then starts a sandbox from it in milliseconds.

    ::

        @pytest.fixture(scope="session")
        def database(minibox_snapshot):
            return minibox_snapshot("database", make_tables, image="postgres")

        def test_it(database, sandbox_factory):
            box = sandbox_factory(database)

    All pytest-xdist workers and later test runs share the image. It is prepared again when something it depends on changes.
    """
    _check(request)
    from minibox.api.prepared import prepared_image

    def prepare(
        name: str,
        prepare: Callable[[Sandbox], object],
        /,
        image: str | None = None,
        *,
        key: str = "",
        **options: Unpack[ContainerOptions],
    ) -> str:
        return prepared_image(name, prepare, image or _default_image(request.config), key=key, **options)

    return prepare


@pytest.fixture(scope="session")
def minibox_build(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Build an image from a Dockerfile, and return its id.

    ::

        @pytest.fixture(scope="session")
        def web(minibox_build):
            return minibox_build("docker/web", build_args={"VERSION": "1"})

        def test_it(web, sandbox_factory):
            box = sandbox_factory(web)

    All pytest-xdist workers share its lines: one worker carries each out, and the others wait for it. The arguments are
    those of `minibox.ImageBuild`.
    """
    _check(request)
    from minibox import ImageBuild

    def build(path: str | os.PathLike[str], **options: Unpack[BuildKeywords]) -> str:
        return ImageBuild(path, **options).result()

    return build


@pytest.fixture
def minibox_network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A network for this test, without access to other networks: ``sandbox_factory(network=minibox_network)``."""
    _check(request)
    from minibox import Network, Unsupported

    try:
        network = Network()
    except Unsupported as error:
        _skip_or_fail(request.config, _error_text(error))
    with network:
        yield network


def _factory(request: pytest.FixtureRequest) -> Iterator[SandboxFactory]:
    _check(request)
    factory = SandboxFactory(request.node, request.config)
    everywhere = request.session.stash.setdefault(_factories, [])
    everywhere.append(factory)
    try:
        yield factory
    finally:
        everywhere.remove(factory)
        factory.close()


def _default_image(config: pytest.Config) -> str:
    return str(config.getoption("--minibox-image") or config.getini("minibox_image"))


class SandboxFactory:
    """Makes sandboxes, and ends them at the end of its fixture's scope.

    Attributes:
        node: the test, class, module, package or session that the sandboxes are for.
    """

    def __init__(self, node: pytest.Item | pytest.Collector, config: pytest.Config) -> None:
        self.node = node
        self._made: list[tuple[Sandbox, Place]] = []
        self._keep = config.getoption("--minibox-keep")
        marks = reversed([mark.kwargs for mark in node.iter_markers("minibox")])  # the closest comes last, and wins
        self._given: dict[str, Any] = {key: value for kwargs in marks for key, value in kwargs.items()}
        self._image: str = self._given.pop("image", "") or _default_image(config)

    def __call__(
        self,
        image: str | Snapshot | None = None,
        args: Iterable[str] | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Sandbox:
        """Start a sandbox. Arguments and errors are as for `minibox.Sandbox`.

        Args:
            image: an image, or a snapshot to start from. None: the mark's image, else that of ``--minibox-image``.
            options: these override the mark's options.
        """
        import minibox
        from minibox.api.place import place

        wanted: Any = {**self._given, **options}
        if isinstance(image, minibox.Snapshot):
            box = image.sandbox(args, **wanted)
        else:
            box = minibox.Sandbox(image or self._image, args, **wanted)
        self._made.append((box, place(wanted)))
        if self._keep != "none":
            box.keep()  # now, because the test may close it
        return box

    def sections(self) -> Iterable[tuple[str, str]]:
        """Return the sections of a report on the sandboxes, as pairs of title and text."""
        for box, where in self._made:
            title = f"sandbox {box.name} ({box.id[:ID_DIGITS]})"
            for what, look in (("verdict", _verdict), ("log", _log), ("changed files", _diff)):
                try:
                    text = look(box, where)
                except Exception as error:  # an error in one section must not lose the others
                    text = f"({error})"
                if text:
                    yield f"{what} of {title}", text
            if self._keep != "none":
                yield f"kept: {title}", f"{_command(where)} shell {box.id[:ID_DIGITS]}"

    def close(self) -> None:
        """End all sandboxes, and remove or keep their files."""
        kept = self._keep == "all" or (self._keep == "failed" and self.node.stash.get(_failed, False))
        failure: Exception | None = None
        for box, where in reversed(self._made):
            try:
                box.close()
                if self._keep != "none" and not kept:
                    _remove(box, where)
            except Exception as error:
                failure = failure or error
        if failure:
            raise failure


# ---- sections of a report -------------------------------------------------------------------------


def _verdict(box: Sandbox, where: Place) -> str:
    return box.verdict.summary


def _log(box: Sandbox, where: Place) -> str:
    from minibox.errors import UsageError

    try:
        text = box.logs()
    except UsageError:
        return ""  # the only main process is the tiny init
    cut = f"[{len(text) - LOG_CHARACTERS} characters left out]\n" if len(text) > LOG_CHARACTERS else ""
    return cut + text[-LOG_CHARACTERS:]


def _diff(box: Sandbox, where: Place) -> str:
    from minibox.engine.files.diff import diff
    from minibox.errors import ContainerNotFound

    try:
        lines = [f"{kind} {path}" for kind, path in diff(where.home.root, box.id)]
    except ContainerNotFound:
        return "(the test closed the sandbox, and its files were not kept)"
    more = [f"and {len(lines) - DIFF_LINES} more"] if len(lines) > DIFF_LINES else []
    return "\n".join(lines[:DIFF_LINES] + more)


def _remove(box: Sandbox, where: Place) -> None:
    from minibox.engine.container.removal import remove
    from minibox.errors import ContainerNotFound

    with suppress(ContainerNotFound):  # the test has removed it
        remove(where.home, box.id, force=True)


def _command(where: Place) -> str:
    """Return ``minibox`` with the --root and --runroot that find the sandbox."""
    from minibox.base.home import default_root, default_runroot

    environ = {key: value for key, value in os.environ.items() if not key.startswith("MINIBOX_")}
    words = ["minibox"]
    home = where.home
    for option, value, default in (("--root", home.root, default_root), ("--runroot", home.runroot, default_runroot)):
        if value != default(environ, os.geteuid()):
            words += [option, value]
    return " ".join(words)


# ---- can this host run sandboxes? -----------------------------------------------------------------


def _check(request: pytest.FixtureRequest) -> None:
    """Skip or fail the test if this host can't run sandboxes. The first call starts one to find out."""
    stash = request.config.stash
    if _missing not in stash:
        stash[_missing] = _probe()
    if stash[_missing]:
        _skip_or_fail(request.config, stash[_missing])


def _probe() -> str:
    """Return why this host can't start a sandbox; "" if it can."""
    try:
        import minibox

        minibox.run("base", ["true"], check=True)
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    except minibox.MiniboxError as error:
        return _error_text(error)
    return ""


def _error_text(error: MiniboxError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _skip_or_fail(config: pytest.Config, why: str) -> NoReturn:
    missing = config.getoption("--minibox-missing") or config.getini("minibox_missing")
    if missing == "fail":
        pytest.fail(f"this host can't run the test's sandboxes: {why}", pytrace=False)
    pytest.skip(f"this host can't run the test's sandboxes: {why}")
