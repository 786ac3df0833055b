"""Shell completion for bash, zsh and fish: click's, plus candidates for minibox's values."""

from __future__ import annotations

import os
from importlib import import_module

import click
from click.shell_completion import BashComplete, CompletionItem, get_completion_class, split_arg_string

from minibox.cli.settings import COMPLETE_VARIABLE, SHELLS, Settings
from minibox.errors import MiniboxError

SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGWINCH")
SECURITY = ("no-new-privileges", "seccomp=unconfined", "seccomp=")

# bash splits words at ":" and "=", which occur in image names and options. So the script passes the whole line on, and
# the answer omits what comes before bash's own current word.
_BASH_SOURCE = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" response completion kind value
    response=$(env COMP_WORDS="$line" COMP_CWORD="${COMP_WORDS[COMP_CWORD]}" %(complete_var)s=bash_complete "$1")
    for completion in $response; do
        IFS=',' read -r kind value <<< "$completion"
        if [[ $kind == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $kind == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $kind == 'plain' ]]; then
            COMPREPLY+=("$value")
            [[ $value == *= ]] && compopt -o nospace
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class LineOfBash(BashComplete):
    """Completion for bash, from the whole line up to the cursor instead of bash's words."""

    source_template = _BASH_SOURCE

    def source(self) -> str:
        return self.source_template % self.source_vars()  # unlike click, doesn't start bash to ask for its version

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        if not words or line[-1:].isspace():
            return words, ""
        return words[:-1], words[-1]

    def complete(self) -> str:
        args, incomplete = self.get_completion_args()
        bash_word = os.environ["COMP_CWORD"]
        # If bash's current word is only a separator, it replaces nothing.
        bash_word = "" if bash_word in (":", "=") else bash_word
        value = incomplete.partition("=")[2] if incomplete.startswith("-") and "=" in incomplete else incomplete
        cut = len(value) - len(bash_word) if value.endswith(bash_word) else 0
        lines = []
        for item in self.get_completions(args, incomplete):
            if item.type == "plain":
                lines.append(f"plain,{item.value[max(cut, 0) :]}")
            else:
                lines.append(self.format_completion(item))
        return "\n".join(lines)


def complete(application: click.Command, instruction: str) -> int:
    """Print completions for ``bash_complete``, or the shell's script for ``bash_source``; other shells likewise."""
    shell, _, what = instruction.partition("_")
    if shell not in SHELLS or what not in ("source", "complete"):
        return 1
    cls = LineOfBash if shell == "bash" else get_completion_class(shell)
    assert cls is not None
    answer = cls(application, {}, "minibox", COMPLETE_VARIABLE)
    click.echo(answer.source() if what == "source" else answer.complete())
    return 0


def candidates(key: str, incomplete: str) -> list[CompletionItem]:
    """Return candidates for the value of an option whose `Option.complete` is ``key``."""
    if key in ("file", "dir"):
        return [CompletionItem(incomplete, type=key)]
    if key == "capability":
        names = import_module("minibox.linux.capabilities").NAMES
        return _starting([name.removeprefix("CAP_") for name in names] + ["ALL"], incomplete)
    if key == "signal":
        return _starting(SIGNALS, incomplete)
    if key == "security":
        return _starting(SECURITY, incomplete)
    return []


def image_candidates(settings: Settings, incomplete: str) -> list[CompletionItem]:
    """Return the short names of the images in the store, and ``base``, which minibox makes on first use."""
    from minibox.image.store import ImageStore, parse_familiar

    try:
        names = [parse_familiar(name) for name in ImageStore(settings.home.root).names()]
    except (MiniboxError, OSError):
        names = []
    return _starting(sorted({"base", *(name.removesuffix(":latest") for name in names)}), incomplete)


def container_candidates(settings: Settings, incomplete: str) -> list[CompletionItem]:
    """Return the names of all containers."""
    from minibox.engine.container.collection import list_containers

    try:
        rows = list_containers(settings.home)
    except (MiniboxError, OSError):
        rows = []
    return _starting([row["Name"] or row["Id"][:12] for row in rows], incomplete)


def network_candidates(settings: Settings, incomplete: str) -> list[CompletionItem]:
    """Return values for ``--network``: the modes, and the names of networks."""
    from minibox.network.named import networks

    try:
        names = [each.name for each in networks(settings.home.root)]
    except OSError:
        names = []
    return _starting(["none", "host", "bridge", *names], incomplete)


def _starting(words: list[str] | tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
