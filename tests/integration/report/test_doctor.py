"""doctor on the machine it runs on: it tries things, tells the truth, and leaves nothing."""

from __future__ import annotations

import json
import os

from minibox.base.home import Home
from minibox.engine.report import doctor
from minibox.engine.report.doctor import diagnose
from tests.probes import requires

pytestmark = requires("root")


def test_every_check_is_complete_and_nothing_is_left(tmp_path):
    before = sorted(os.listdir(tmp_path))
    checks = diagnose(Home(f"{tmp_path}/root/not/yet", f"{tmp_path}/runroot"))
    assert sorted(os.listdir(tmp_path)) == before
    names = [check.name for check in checks]
    for name in (
        "kernel",
        "cgroups",
        "user namespaces",
        "rootless",
        "overlayfs",
        "id-mapped layers",
        "seccomp",
        "root",
    ):
        assert name in names
    for check in checks:
        assert check.found
        assert check.status in ("pass", "degraded", "missing")
        assert bool(check.consequence) == bool(check.fix) == (check.status != "pass"), check
    json.dumps([[check.name, check.status, check.found] for check in checks])


@requires("idmap")
def test_what_containers_here_rely_on_passes(tmp_path):
    checks = {check.name: check for check in diagnose(Home(str(tmp_path), str(tmp_path)))}
    for name in ("kernel", "user namespaces", "overlayfs", "id-mapped layers", "terminals", "seccomp", "root"):
        assert checks[name].status == "pass", checks[name]


def test_a_path_where_nothing_can_be_written():
    check = doctor.check_directory("root", "/proc/1/nowhere")
    assert check.status == "missing" and check.fix
