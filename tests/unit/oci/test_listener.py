"""Handing on the listener of a seccomp filter."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minibox.engine.process import seccomp_listener as listener
from minibox.errors import MiniboxError

STATE = {"ociVersion": "1.2.0", "id": "c1", "bundle": "/b", "pid": 7}


class Agent:
    """Somebody who takes one message, and is gone."""

    def __init__(self, path: Path, *, reads: bool = True) -> None:
        self.received, self.fds, self._reads = b"", 0, reads
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            while self._reads:
                data, fds, *_ = socket.recv_fds(connection, 1 << 20, 1)
                for fd in fds:
                    os.close(fd)
                self.received, self.fds = self.received + data, self.fds + len(fds)
                if not data or self._is_whole():
                    return

    def _is_whole(self) -> bool:
        try:
            json.loads(self.received)
        except ValueError:
            return False
        return True

    def wait(self) -> None:
        self._thread.join()


class GoneAfterwards(socket.socket):
    """A socket whose peer has closed its end by the time that a message was sent."""

    def sendmsg(self, *arguments: Any) -> int:
        sent = super().sendmsg(*arguments)
        gone = select.poll()
        gone.register(self, 0)  # POLLHUP alone
        gone.poll()
        return sent


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDONLY)
    yield fd
    os.close(fd)


def to(path: Path, metadata: str = "") -> tuple[str, str]:
    return str(path), metadata


def test_an_agent_that_is_gone_with_all_of_it_is_no_failure(tmp_path, null, monkeypatch):
    monkeypatch.setattr(listener, "socket", GoneAfterwards)
    agent = Agent(tmp_path / "agent")
    listener.send_listener(*to(tmp_path / "agent", "some"), 9, STATE, null)
    agent.wait()
    found = json.loads(agent.received)
    assert (found["pid"], found["metadata"], found["fds"], found["state"]) == (9, "some", ["seccompFd"], STATE)
    assert agent.fds == 1


def test_more_than_fits_at_once_arrives(tmp_path, null):
    agent = Agent(tmp_path / "agent")
    listener.send_listener(*to(tmp_path / "agent", "x" * 3_000_000), 9, STATE, null)
    agent.wait()
    assert len(json.loads(agent.received)["metadata"]) == 3_000_000
    assert agent.fds == 1


def test_an_agent_that_takes_half_of_it_is_one(tmp_path, null):
    agent = Agent(tmp_path / "agent", reads=False)
    with pytest.raises(MiniboxError, match="send the seccomp listener to"):
        listener.send_listener(*to(tmp_path / "agent", "x" * 3_000_000), 9, STATE, null)
    agent.wait()


def test_nobody_listens(tmp_path, null):
    with pytest.raises(MiniboxError, match="No such file"):
        listener.send_listener(*to(tmp_path / "agent"), 9, STATE, null)
