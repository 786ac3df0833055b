"""The command why."""

from __future__ import annotations

from minibox.cli.declare import argument, command, option
from minibox.cli.format.table import format_json, printable
from minibox.cli.messages import echo
from minibox.cli.parameters import complete_container, settings_of
from minibox.errors import MiniboxError
from minibox.outcome import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.cli.declare import Context


@command(
    epilog="""\b
Examples:
  minibox why web
  minibox why --json web | jq -r .kind"""
)
@option("--json", "as_json", is_flag=True, help="Print JSON: an object for one container, a list for several")
@argument("containers", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete_container)
def why(ctx: Context, containers: tuple[str, ...], as_json: bool) -> None:
    """Show why containers ended: by themselves, by a signal and who sent it, for lack of memory, and so on.

    It shows the evidence, the last lines of output, and what you can do.
    """
    from minibox.engine.report.why import verdict

    settings = settings_of(ctx)
    verdicts, failed = [], None
    for name in containers:
        try:
            verdicts.append(verdict(settings.home, name))
        except MiniboxError as error:
            failed = failed or error
    if as_json:
        documents = [{name: getattr(each, name) for name in type(each).__annotations__} for each in verdicts]
        if documents:
            echo(format_json(documents[0] if len(containers) == 1 else documents))
    else:
        for index, each in enumerate(verdicts):
            echo("\n" * bool(index) + "\n".join(_lines(each)))
    if failed:
        raise failed


def _lines(found: Verdict) -> Iterator[str]:
    yield f"{found.name or found.id[:12]}: {printable(found.summary)}"
    facts = []
    if found.status is not None:
        facts.append(f"exit status {found.status}" + (f" ({found.signal})" if found.signal else ""))
    if found.ran_s is not None and found.status is not None:
        facts.append(f"it ran for {found.ran_s:.3g} s")
    for fact in (", ".join(facts), *found.evidence):
        if fact:
            yield f"  {printable(fact)}"
    if found.log:
        yield "  last output:"
    for line in found.log:
        yield f"    {printable(line)}"
    if found.hint:
        yield f"hint: {printable(found.hint)}"
