"""Read text files of the host that may be missing."""

from __future__ import annotations


def read_text(path: str) -> str:
    """Return a file's text; "" if it can't be read (a kernel without CONFIG_IP_FIB_TRIE_STATS, no /etc)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
