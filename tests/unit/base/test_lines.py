"""Lines of texts of others end at newlines, and at nothing else."""

import pytest

from minibox.base.lines import lines_of
from minibox.linux.mount_table import type_in
from minibox.network.etc_files import resolv_conf_text

OTHERS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize(
    ("text", "lines"),
    [("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\n\nb\n", ["a", "", "b"]), (OTHERS, [OTHERS])],
)
def test_lines(text, lines):
    assert lines_of(text) == lines


@pytest.mark.parametrize("character", OTHERS)
def test_a_mount_may_have_any_of_them_in_its_name(character):
    text = f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /a{character}b rw - xfs /dev/b rw\n"
    assert type_in(text, f"/a{character}b/c", "") == "xfs"


@pytest.mark.parametrize("character", OTHERS)
def test_a_line_of_resolv_conf_stays_one(character):
    text = f"search a{character}nameserver 6.6.6.6\nnameserver 9.9.9.9\n"
    found = resolv_conf_text(text)
    assert found.split("\n") == ["nameserver 9.9.9.9", f"search a{character}nameserver 6.6.6.6", ""]
