"""The text of files of the host, where to lack one is no error."""

from __future__ import annotations


def read_text(path: str) -> str:
    """A file's text; empty when it can't be read (a kernel without CONFIG_IP_FIB_TRIE_STATS, no /etc)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
