"""After a fork the child has the parent's objects and may use none of them."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import minibox
from minibox import aio
from minibox.errors import OwnedByParent, WrongArgument
from tests.probes import requires
from tools.arguments import INTERNAL

pytestmark = requires("root")

#: What a child may do with its parent's objects: look at what doesn't change, and let go.
HARMLESS = {"close", "id", "name", "pid", "returncode", "args", "image", "stdin", "stdout", "stderr", "subnet", "gateway",
            "internal", "where", "sync"} | INTERNAL  # fmt: skip
VALUES: dict[str, Any] = {
    "args": ["true"], "path": "/x", "data": "", "source": "/etc/hostname", "destination": "/x", "reference": "x",
    "signal": 0, "groups": (), "port": 80, "options": {}, "keywords": {},
}  # fmt: skip


def in_child(work: Callable[[], str]) -> str:
    """Call ``work`` in a forked child; what it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                told = work()
            except BaseException:
                told = traceback.format_exc()
            os.write(writer, told.encode()[:60000])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return told


def uses(owned: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each public method and property of an object, as a call."""
    for name in dir(type(owned)):
        if name in HARMLESS or (name.startswith("_") and name not in ("__enter__", "__aenter__", "__iter__")):
            continue
        found = inspect.getattr_static(type(owned), name)
        if isinstance(found, (classmethod, staticmethod)):
            continue
        if isinstance(found, property):
            yield name, partial(getattr, owned, name)
        elif callable(found):
            parameters = [
                each for each in inspect.signature(found).parameters.values()
                if each.name != "self" and each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
            ]  # fmt: skip
            given = [VALUES.get(each.name, owned) for each in parameters]
            yield name, partial(_call, owned, name, given)


def _call(owned: Any, name: str, given: list[Any]) -> Any:
    return getattr(owned, name)(*given)


def allowed_in_child(owned: Any) -> str:
    """What the child could do, or what was told otherwise than it should; a line each."""
    wrong = []
    for name, use in uses(owned):
        try:
            found = use()
            if inspect.iscoroutine(found):
                asyncio.run(found)
            wrong.append(f"{name}: allowed")
        except OwnedByParent as error:
            if not error.hint or f"{name} of <" not in str(error):
                wrong.append(f"{name}: {error}")
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
    return "\n".join(wrong)


def test_no_method_of_a_sandbox_works_in_a_child(api: None) -> None:
    with minibox.Sandbox("base") as box, box.popen(["sleep", "100"]) as command:
        assert in_child(lambda: allowed_in_child(box)) == ""
        assert in_child(lambda: allowed_in_child(command)) == ""
        assert command.poll() is None
        assert box.run(["echo", "alive"], capture_output=True).stdout == b"alive\n"
        command.kill()


def test_nor_of_a_snapshot_and_a_network(api: None) -> None:
    with minibox.Sandbox("base") as box, box.snapshot() as snapshot, minibox.Network() as network:
        assert in_child(lambda: allowed_in_child(snapshot)) == ""
        assert in_child(lambda: allowed_in_child(network)) == ""
        with snapshot.sandbox(network=network) as fork:
            assert fork.address == network.address_of(fork)


def test_nor_of_asyncio(api: None) -> None:
    async def program() -> None:
        async with aio.Sandbox("base") as box:
            process = await box.popen(["sleep", "100"])
            async with await box.snapshot() as snapshot:
                for each in (box, process, snapshot):
                    assert await asyncio.to_thread(in_child, partial(allowed_in_child, each)) == ""
            process.kill()
            assert await process.wait() == -9

    asyncio.run(program())


def test_a_child_that_lets_go_takes_nothing_away(api: None) -> None:
    def let_go() -> str:
        command.__exit__(None, None, None)
        command.close()
        for each in (box, snapshot, network):
            each.close()
            with pytest.raises(OwnedByParent), each:
                pass
        return repr(box)

    with minibox.Network() as network, minibox.Sandbox("base", network=network) as box, box.snapshot() as snapshot:
        with box.popen(["sleep", "100"]) as command:
            assert in_child(let_go) == f"<minibox.Sandbox {box.name} of base, another process's>"
            assert command.poll() is None and box.address == network.address_of(box)
            snapshot.sandbox().close()
            command.kill()


def test_a_child_that_kills_and_waits_does_not_reap_the_parents(api: None) -> None:
    def kill_and_wait() -> str:
        for use in (box.kill, lambda: box.wait(1), box.keep):
            with pytest.raises(
                OwnedByParent, match=f"{box.name}.*belongs to the process from which this one was forked"
            ):
                use()
        return "refused"

    with minibox.Sandbox("base", ["sleep", "1000"]) as box:
        assert in_child(kill_and_wait) == "refused"
        assert box.run(["true"]).returncode == 0


def test_a_child_has_its_own(api: None, orphans: object) -> None:
    def work() -> str:
        with minibox.Sandbox("base", network=network) as own:
            return str(own.run(["ping", "-c", "1", "-W", "5", box.name], capture_output=True).returncode)

    with minibox.Network() as network, minibox.Sandbox("base", network=network, name="db") as box:
        assert in_child(work) == "0"


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_belongs_to_a_process_is_not_copied(api: None, duplicate: Callable[[object], object]) -> None:
    with minibox.Sandbox("base") as box, minibox.Network() as network, box.popen(["true"]) as command:
        for each in (box, network, command):
            with pytest.raises(WrongArgument, match=re.escape(f"pickle or copy {each!r}: it belongs to this process")):
                duplicate(each)


def test_what_is_closed_says_what_to_do(api: None) -> None:
    with minibox.Sandbox("base") as box, box.snapshot() as snapshot, minibox.Network() as network:
        pass
    closed: list[Callable[[], Any]] = [box.keep, box.diff, box.snapshot, lambda: box.run(["true"]), lambda: box.popen(["true"]),
              lambda: box.write_file("/x", ""), lambda: box.read_file("/x"), lambda: box.wait_for(port=80),
              lambda: box.commit("x"), lambda: box.put("/etc/hostname", "/"), lambda: box.get("/etc", "/tmp"),
              snapshot.sandbox, network.heal, lambda: network.connect(box), lambda: network.disconnect(box),
              network.partition, lambda: network.address_of(box), lambda: minibox.Sandbox("base", network=network)]  # fmt: skip
    for use in closed:
        with pytest.raises(minibox.MiniboxError, match=r"it was closed\nhint: do this before close, in the with block"):
            use()
    assert (box.verdict.kind, box.verdict.summary) == ("killed", "this program sent it SIGKILL")
