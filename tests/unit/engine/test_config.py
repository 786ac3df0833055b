"""config.toml: what is read, where it is looked for, and how mistakes are worded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox import config
from minibox.config import RegistryConfig
from minibox.errors import ConfigError

EXAMPLE = b"""
[storage]
driver = "btrfs"

[registries."docker.io"]
mirrors = ["mirror.example:5000/hub", "http://10.0.0.1:5000"]

[registries."lab.example:5000"]
location = "10.0.0.2:5000"
insecure = true
ca_file = "/etc/ssl/lab.pem"
"""


def test_all_keys_are_read():
    read = config.parse(EXAMPLE, "/c")
    assert read.storage_driver == "btrfs"
    assert read.registries["docker.io"] == RegistryConfig(mirrors=("mirror.example:5000/hub", "http://10.0.0.1:5000"))
    assert read.registries["lab.example:5000"] == RegistryConfig("10.0.0.2:5000", (), True, "/etc/ssl/lab.pem")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[storage", "/c is not valid TOML: "),
        (b"\xff", "/c is not valid TOML: "),
        (b"[storages]", "/c: storages is unknown"),
        (b"storage = 1", "/c: storage is not a table"),
        (b"[storage]\ndriver = true", "/c: storage.driver is not a string"),
        (b"[registries]\na = 1", '/c: registries."a" is not a table'),
        (b"[registries.a]\ninsecure = 'yes'", '/c: registries."a".insecure is not true or false'),
        (b"[registries.a]\nmirror = []", '/c: registries."a".mirror is unknown'),
        (b"[registries.a]\nmirrors = [1]", '/c: registries."a".mirrors is not a list of hosts'),
        (b"[registries.a]\nca_file = 'x'", '/c: registries."a".ca_file is not an absolute path'),
    ],
)
def test_mistake_is_named_with_file_and_key(text, says):
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "/c")
    assert str(caught.value).startswith(says)


def test_unknown_key_hints_at_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        config.parse(b"[registries.a]\nmirror = []", "/c")
    assert "mirrors" in (caught.value.hint or "")


@given(st.binary(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        config.parse(text, "/c")
    except ConfigError:
        pass


def test_chosen_file_must_be_there(tmp_path):
    path = tmp_path / "config.toml"
    with pytest.raises(ConfigError, match=r"config\.toml: No such file"):
        config.load({"MINIBOX_CONFIG": str(path)})
    path.write_bytes(EXAMPLE)
    assert config.load({"MINIBOX_CONFIG": str(path)}).path == str(path)


def test_no_file_no_opinion(monkeypatch):
    monkeypatch.setattr(config, "SYSTEM_PATH", "/nonexistent/config.toml")
    read = config.load({})
    assert (read.path, read.storage_driver, read.registries) == ("", "", {})


def test_user_has_a_file_of_his_own_and_root_has_not(monkeypatch):
    for uid, first in ((1000, "/h/.config/minibox/config.toml"), (0, config.SYSTEM_PATH)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert config.paths({"HOME": "/h"})[0] == first
        assert config.paths({"HOME": "/h"})[-1] == config.SYSTEM_PATH


def test_without_a_file_nothing_heavy_is_imported():
    code = "import sys, minibox.config as c; c.load({}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": os.getcwd()})  # fmt: skip
    assert not {"tomllib", "re", "json", "typing", "dataclasses", "pathlib"} & set(done.stdout.split())


def test_keys_in_the_documentation_are_the_keys():
    text = (Path(__file__).parents[3] / "docs/registries.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    read = config.parse(example.encode(), "docs/registries.md")
    told = {key for table in read.registries.values() for key in RegistryConfig.__annotations__ if getattr(table, key)}
    assert told == set(RegistryConfig.__annotations__)
    assert read.storage_driver
