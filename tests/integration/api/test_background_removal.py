"""What a container leaves is removed while the program goes on, and before it ends."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

import minibox
from minibox.engine.files import background_removal
from minibox.engine.state.claim import Claim
from minibox.errors import StoreError
from tests.leaks import SLOWNESS

pytestmark = pytest.mark.requires("root")


def left(state):
    return [name for kind in ("containers", "live", "ids") for name in os.listdir(state / "root" / kind)]


def threads():
    return len(os.listdir("/proc/self/task"))


def test_it_is_gone_when_that_is_waited_for_and_so_is_the_thread(api, state):
    before = threads()
    for _ in range(3):
        minibox.run("base", ["true"], check=True)
    background_removal.finish()
    assert left(state) == []
    deadline = time.monotonic() + 10 * SLOWNESS
    while threads() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_gone_when_the_program_ends(environment, state):
    program = 'import minibox\nfor _ in range(5): minibox.run("base", ["touch", "/file"], check=True)'
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert left(state) == []


def test_a_claim_whose_root_was_removed_keeps_no_descriptor(tmp_path):
    claim = Claim.new(str(tmp_path), "", remove=True)
    shutil.rmtree(tmp_path / "live")
    claim.release()
    assert claim.fd == -1


def test_a_name_can_be_had_again_at_once(api):
    for _ in range(5):
        minibox.run("base", ["true"], name="same", check=True)


def test_who_comes_with_more_than_may_wait_does_it_himself(monkeypatch):
    monkeypatch.setattr(background_removal, "WAITING_MAX", 1)
    goes_on, done = threading.Event(), []

    def note(number):
        done.append((number, threading.current_thread().name))

    background_removal.later(goes_on.wait)
    while not background_removal._removal._jobs.empty():
        time.sleep(0.001)
    for number in range(3):
        background_removal.later(partial(note, number))
    assert [number for number, name in done if name == "MainThread"] == [1, 2]
    goes_on.set()
    background_removal.finish()
    assert sorted(number for number, _ in done) == [0, 1, 2]


def test_a_removal_that_fails_stops_no_other():
    done = []

    def fails():
        raise StoreError("in vain")

    background_removal.later(fails)
    background_removal.later(lambda: done.append(1))
    background_removal.finish()
    assert done == [1]


def test_a_child_by_fork_has_its_own():
    goes_on = threading.Event()
    background_removal.later(goes_on.wait)
    child = multiprocessing.get_context("fork").Process(target=background_removal.finish)
    child.start()
    child.join(20 * SLOWNESS)
    assert child.exitcode == 0
    goes_on.set()


def remove_slowly(path):
    def job():
        time.sleep(0.3)
        os.mkdir(path)

    background_removal.later(job)


def test_a_child_of_multiprocessing_waits_for_it_too(tmp_path):
    """Its end calls nothing of atexit."""
    process = multiprocessing.get_context("fork").Process(target=remove_slowly, args=[f"{tmp_path}/done"])
    process.start()
    process.join()
    assert os.path.isdir(f"{tmp_path}/done")
