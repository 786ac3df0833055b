"""What becomes of a trial's changes, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.base.home import Home
from minibox.cli.commands.teaching import trial as commands
from minibox.engine.trial import kept, run
from minibox.engine.trial.changes import Found
from minibox.engine.trial.host_tree import HostTree, Part
from minibox.engine.trial.kept import Trial
from minibox.errors import MiniboxError


def fails(error: BaseException) -> object:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MiniboxError("disk full"), OSError(5, "I/O error")])
def test_what_interrupts_apply_loses_no_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    ended = tmp_path / "root/containers/0123456789abcdef"
    (ended / "upper").mkdir(parents=True)
    (ended / "upper/made").write_text("made")
    found = Found("A", "/made", 0, 0o100644, 4, None, "")
    host = HostTree(str(tmp_path), (Part("/", str(tmp_path)),))
    trial = Trial("", str(ended), host, ("true",), 0, 0, (found,))
    monkeypatch.setattr(run, "apply", fails(error))
    with pytest.raises(type(error)):
        commands._settle(Home(str(tmp_path / "root"), ""), trial, "apply", force=True, privileged=False, asks=False)
    [name] = kept.names(str(tmp_path / "root"))
    assert (tmp_path / "root/trials" / name / "upper/made").read_text() == "made"
    assert f"minibox tried {name}" in capsys.readouterr().err + str(getattr(error, "hint", ""))
