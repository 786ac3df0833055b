"""Git repositories as contexts, and for ADD: what is checked out of a repository, by the program git."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from minibox.build.context.tree import Tree, is_directory
from minibox.errors import BuildError, kernel_says
from minibox.linux.removal import remove_tree
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMES = ("git://", "ssh://", "git@")
HTTP = ("http://", "https://")
#: [user@]host:path, as ssh has it.
SCP = re.compile(r"\w[\w.-]*@\w[\w.-]*:(?!//)\S+")
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CHECKSUM = re.compile(r"[0-9a-f]{7,64}")
#: Hooks and helpers of a repository that isn't ours must not run, nor anything after the command has ended.
SAFELY = (
    "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.fsmonitor=false",
    "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.symlinks=true", "-c", "core.autocrlf=false", "-c", "advice.detachedHead=false",
)  # fmt: skip
QUERY = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules")
ERROR_CHARACTERS_MAX = 500


@record
class Repository:
    """Which part of which repository.

    Attributes:
        remote: as for git.
        ref: a branch, tag or commit; "" for the default branch.
        subdirectory: "" for the whole.
        checksum: the beginning of the commit that it must be; "" for any.
        keeps_git: keep the directory ``.git``.
        with_submodules: check out submodules, too.
    """

    remote: str
    ref: str
    subdirectory: str
    checksum: str
    keeps_git: bool
    with_submodules: bool


def parse(text: str) -> Repository | None:
    """Return the repository that a URL means: ``REMOTE[?NAME=VALUE&...][#REF[:SUBDIRECTORY]]``; None for another URL.

    Raises:
        BuildError: it means one, but is malformed.
    """
    address, _, fragment = text.partition("#")
    remote, _, query = address.partition("?")
    is_http = remote.startswith(HTTP) and urlsplit(remote).path.endswith(".git")
    if not (is_http or remote.startswith(SCHEMES) or SCP.fullmatch(remote)):
        if not remote.startswith("github.com/"):
            return None
        remote = f"https://{remote}"
    ref, _, subdirectory = fragment.partition(":")
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name not in QUERY:
            raise BuildError(f"{text}: unknown {name!r} in the query", f"known are {', '.join(QUERY)}")
    ref = ref or found.get("ref") or found.get("branch") or found.get("tag") or ""
    checksum = found.get("checksum") or found.get("commit") or ""
    if ref.startswith("-") or (checksum and not CHECKSUM.fullmatch(checksum)):
        raise BuildError(f"{text}: {ascii(checksum or ref)} can't be a commit")
    keeps = found.get("keep-git-dir", "false") not in ("false", "0")
    return Repository(
        remote,
        ref,
        subdirectory or found.get("subdir", ""),
        checksum,
        keeps,
        found.get("submodules", "true") != "false",
    )


def check_out(repository: Repository, directory: str, environ: Mapping[str, str]) -> str:
    """Check a repository out into an empty directory; return the commit.

    Raises:
        BuildError: there is no git, or it fails; the subdirectory isn't there.
    """
    _run(directory, environ, "init", "--quiet", ".")
    _run(directory, environ, "remote", "add", "origin", repository.remote)
    ref = repository.ref or (repository.checksum if COMMIT.fullmatch(repository.checksum) else "HEAD")
    _run(directory, environ, "checkout", "--quiet", "--force", _fetch(directory, environ, ref), "--")
    commit = _run(directory, environ, "rev-parse", "HEAD").strip()
    if not commit.startswith(repository.checksum):
        raise BuildError(f"{repository.remote}: {ref} is the commit {commit}, not {repository.checksum}")
    if repository.with_submodules and os.path.exists(f"{directory}/.gitmodules"):
        _run(directory, environ, "submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1")
    if not repository.keeps_git:
        remove_tree(f"{directory}/.git")
    return commit


def subdirectory_of(repository: Repository, directory: str) -> str:
    """Return the directory of a checked out repository that is asked for.

    Raises:
        BuildError: it isn't there, or isn't a directory.
    """
    with Tree(directory, what="the repository") as tree:
        found = tree.resolve(repository.subdirectory)
        if found is None or not is_directory(found[1]):
            raise BuildError(f"{repository.subdirectory!r} is not a directory in {repository.remote}")
        return f"{directory}/{found[0]}".rstrip("/")


def _fetch(directory: str, environ: Mapping[str, str], ref: str) -> str:
    """Fetch what a ref needs, and nothing else if the server can do that; return what to check out."""
    try:
        _run(directory, environ, "fetch", "--quiet", "--depth", "1", "--no-tags", "origin", ref)
        return "FETCH_HEAD"
    except BuildError:
        # An old server, or one that only sends what has a name: fetch everything.
        _run(directory, environ, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    if ref == "HEAD":
        _run(directory, environ, "fetch", "--quiet", "origin", ref)
        return "FETCH_HEAD"
    for name in (f"refs/remotes/origin/{ref}", f"refs/tags/{ref}", ref):
        try:
            return _run(directory, environ, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
        except BuildError:
            continue
    raise BuildError(f"the repository has no branch, tag or commit {ref!r}")


def _run(directory: str, environ: Mapping[str, str], *words: str) -> str:
    import subprocess

    variables = {**environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        variables.pop(name, None)
    try:
        done = subprocess.run(
            ["git", *SAFELY, *words], cwd=directory, env=variables, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise BuildError("git is not installed, and the context is a git repository", "install git") from None
    except OSError as error:
        raise BuildError(f"start git: {kernel_says(error)}") from error
    if done.returncode:
        raise BuildError(
            f"git {words[0]}: {done.stderr.strip()[-ERROR_CHARACTERS_MAX:] or f'status {done.returncode}'}"
        )
    return done.stdout
