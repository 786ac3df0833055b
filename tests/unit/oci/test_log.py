"""The log of `minibox-oci`: what conmon and containerd's shim parse."""

from __future__ import annotations

import json

from minibox.oci_cli.log import Log, json_line, text_line
from minibox.oci_cli.main import main

NOW = "2026-01-02T03:04:05Z"


def test_json():
    line = json_line({"level": "error", "msg": 'exec: "x": not\nthere'}, NOW)
    assert json.loads(line) == {"level": "error", "msg": 'exec: "x": not\nthere', "time": NOW}
    assert line.endswith("}\n") and line.count("\n") == 1


def test_text():
    line = text_line({"level": "error", "msg": 'exec: "x": not\nthere'}, NOW)
    assert line == f'time="{NOW}" level=error msg="exec: \\"x\\": not\\nthere"\n'


def test_a_word_is_not_quoted():
    assert text_line({"level": "error", "msg": "short"}, NOW) == f'time="{NOW}" level=error msg=short\n'


def test_errors_go_to_the_file_and_in_plain_words_to_stderr(tmp_path, capsys):
    path = tmp_path / "log"
    log = Log(str(path), "json")
    log.write("debug", "not written")
    log.write("warning", "only in the file")
    log.write("error", "broken", hint="mend it")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["level"], line["msg"]) for line in lines] == [("warning", "only in the file"), ("error", "broken")]
    assert lines[1]["hint"] == "mend it"
    assert capsys.readouterr().err == "broken\n"


def run(tmp_path, *words):
    return main(["--root", str(tmp_path / "root"), *words])


def test_exit_statuses(tmp_path, capsys):
    assert run(tmp_path) == 0 and "USAGE" in capsys.readouterr().out
    assert run(tmp_path, "state", "none") == 1 and "container does not exist" in capsys.readouterr().err
    assert run(tmp_path, "delete", "--force", "none") == 0
    assert run(tmp_path, "exec", "none", "ls") == 255
    assert "exec failed: container does not exist" in capsys.readouterr().err
    assert run(tmp_path, "frobnicate") == 3 and "No help topic for 'frobnicate'" in capsys.readouterr().err
    assert run(tmp_path, "state", "--foo", "x") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("Incorrect Usage: flag provided but not defined: -foo\n")
    assert "flag provided but not defined: -foo" in captured.err
    assert run(tmp_path, "state") == 1
    assert 'minibox-oci: \\"state\\" requires exactly 1 argument(s)' in capsys.readouterr().err
    assert run(tmp_path, "--log-format", "yaml", "list") == 1 and "invalid log-format" in capsys.readouterr().err
    assert run(tmp_path, "--rootless", "perhaps", "list") == 1


def test_list_of_none(tmp_path, capsys):
    assert run(tmp_path, "list") == 0
    assert capsys.readouterr().out == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert run(tmp_path, "list", "--format", "json") == 0
    assert capsys.readouterr().out == "null\n"
    assert run(tmp_path, "list", "--format", "yaml") == 1


def test_version_is_in_runcs_form(capsys):
    assert main(["--version"]) == 0
    name, commit, spec = capsys.readouterr().out.splitlines()
    assert name.startswith("minibox-oci version ") and commit.startswith("commit: ") and spec.startswith("spec: 1.3")
