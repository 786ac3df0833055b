"""A pytest plugin for the suite of a PostgreSQL client: each module of tests gets a database server of its own, as new.

The server is a fork of a prepared sandbox; PGHOST says where it is, as the suite of pg8000 and others expect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import minibox
from minibox.pytest_plugin import SandboxFactory

BIN = "/usr/lib/postgresql/15/bin"
OPTIONS = "-c listen_addresses=* -c fsync=off -c max_prepared_transactions=10"


def prepare(box: minibox.Sandbox) -> None:
    script = """
        grep -q ^postgres: /etc/passwd || echo postgres:x:999:999::/:/bin/sh >>/etc/passwd
        install -d -o postgres /data /var/run/postgresql
        echo pw >/password
    """
    box.run(["sh", "-ec", script], check=True)
    words = [f"{BIN}/initdb", "-D", "/data", "-A", "scram-sha-256", "--pwfile", "/password", "-N", "-E", "UTF8"]
    box.run(words, user="postgres", stdout=minibox.DEVNULL, check=True)
    # Two of its tests want this extension in the database that they connect to.
    single = [f"{BIN}/postgres", "--single", "-D", "/data", "postgres"]
    box.run(single, user="postgres", input="create extension hstore\n", text=True, stdout=minibox.DEVNULL, check=True)
    box.run(["sh", "-c", "echo host all all all scram-sha-256 >>/data/pg_hba.conf"], check=True)


@pytest.fixture(scope="session")
def prepared(minibox_snapshot):
    return minibox_snapshot("pg8000", prepare, image="postgres")


@pytest.fixture(scope="session")
def network() -> Iterator[minibox.Network]:
    with minibox.Network() as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def server(prepared: str, network: minibox.Network, module_sandbox_factory: SandboxFactory) -> None:
    """Before all fixtures of the suite's own, which are of smaller scopes."""
    box = module_sandbox_factory(prepared, network=network, init=True)
    words = [f"{BIN}/pg_ctl", "-D", "/data", "-w", "-l", "/data/log", "-o", OPTIONS, "start"]
    box.run(words, user="postgres", stdout=minibox.DEVNULL, check=True)
    os.environ["PGHOST"] = str(box.address)
