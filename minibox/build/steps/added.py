"""ADD: local files and archives, files from URLs, git repositories."""

from __future__ import annotations

import os

from minibox.build.context import git
from minibox.build.context.download import download
from minibox.build.steps.sources import Downloaded, FromContext, Several, Sources
from minibox.errors import BuildError
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.dockerfile import instructions as kinds
    from minibox.build.opening import Contexts

URLS = ("http://", "https://")


def added(contexts: Contexts, line: kinds.Add) -> Sources:
    """Find the sources of an ADD; what is remote is downloaded.

    Raises:
        BuildError: a source is missing, or the checksum is another.
    """
    parts: list[Sources] = []
    local = [source for source in line.sources if not _is_remote(source)]
    if line.checksum and (local or len(line.sources) > 1):
        raise BuildError("--checksum needs a single source, which is remote")
    if local:
        parts.append(FromContext(contexts.main, replace(line, sources=tuple(local))))
    for source in line.sources:
        if repository := git.parse(source):
            parts.append(_checked_out(contexts, line, source, repository))
        elif source.startswith(URLS):
            path = f"{contexts.temporary()}/file"
            found = download(source, path, os.environ, line.checksum)
            parts.append(Downloaded([(source, path, found.digest, found.changed_s)], unpack=bool(line.unpack)))
    return parts[0] if len(parts) == 1 else Several(parts)


def _is_remote(source: str) -> bool:
    return source.startswith(URLS) or git.parse(source) is not None


def _checked_out(contexts: Contexts, line: kinds.Add, source: str, repository: git.Repository) -> Sources:
    if line.keep_git_dir is not None:
        repository = replace(repository, keeps_git=line.keep_git_dir)
    if line.checksum:
        repository = replace(repository, checksum=line.checksum)
    directory = contexts.temporary()
    commit = git.check_out(repository, directory, os.environ)
    context = contexts.opened(git.subdirectory_of(repository, directory), f"the repository {source}")
    whole = replace(line, sources=(".",), unpack=False)
    sources = FromContext(context, whole)
    if repository.keeps_git:
        sources.inputs = {source: commit.rjust(64, "0")[-64:]}  # git's own files differ from one clone to the next
    else:
        sources.inputs = {source: next(iter(sources.inputs.values()))}
    return sources
