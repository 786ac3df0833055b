"""What differs from one recording to the next is put in other words: ids, pids, times, paths, addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_NUMBERS = re.compile(
    r"pid|time|start|finish|creat|inode|supervisor|boot|born|device|mtime|ctime|token|size_?(root)?fs|^at$|^ns$",
    re.IGNORECASE,
)
_RULES: list[tuple[str, str]] = [
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?", "<time>"),
    (r"\b[0-9a-f]{64}\b", "<hex64>"),
    (r"\b[0-9a-f]{32}\b", "<hex32>"),
    (r"\b[0-9a-f]{12}\b", "<hex12>"),
    (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "<mac>"),
    (r"\bfe80::[0-9a-f:]+", "<link-local>"),
    (r"/proc/\d+\b", "/proc/<pid>"),
    (r'("pid": ?)\d+', r"\1<pid>"),
    (r"\b(pid|PID|process)([ :=]+)\d+", r"\1\2<pid>"),
    (r"\b(pipe|socket|user|net|mnt|pid|uts|ipc|cgroup|time):\[\d+\]", r"\1:[<n>]"),
    (r"\.[0-9]+\.[0-9a-f]{8}\b", ".<temporary>"),
    (r"\b[a-z]+_[a-z]+_[0-9a-f]{4}\b", "<name>"),
    (r"\b10\.2\d\d\.\d+\.\d+\b", "<address>"),
    (r"/ids/\d+\b", "/ids/<n>"),
    (r"\b0:\d+\b", "0:<device>"),  # an anonymous one, in mountinfo
    (r"\b(shared|master|propagate_from|peer):\d+", r"\1:<n>"),
    (r"\b(mb-|veth|mbv?)[0-9a-f]{8,}\b", r"\1<hex>"),
    (r"\bif\d+\b", "if<n>"),
    (r"\beth0@\S+", "eth0@<peer>"),
    (r"\b\d{1,2} [A-Z][a-z]{2} +\d+ [\d:]+|\b[A-Z][a-z]{2} +\d{1,2} +(\d\d:\d\d|\d{4})\b", "<date>"),
    (r"loop\d+", "loop<n>"),
    (r"\b\d+\.\d{4,}\b", "<n>"),
    (r"^\[\d+\]$", "[<pid>]"),
    (r"\b\d+:40265\d{5} [0-9a-f]{8}\b", "<namespace> <hash>"),
]
#: Of this host, in one of the ranges that minibox gives to containers.
_OWN_IDS = re.compile(r"\b(?:1[89]|2[01])\d{8}\b")
_COMPILED = [(re.compile(pattern), put) for pattern, put in _RULES]


class Normal:
    """Puts texts and values in normal words.

    Attributes:
        paths: a text by what is put for it, longest first.
    """

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = dict(sorted(paths.items(), key=lambda pair: -len(pair[0])))
        self.ids: list[str] = []

    def know(self, ids: Iterable[str]) -> None:
        """The ids of containers, which have words of their own."""
        self.ids = sorted(ids)

    def text(self, text: str) -> str:
        for path, put in self.paths.items():
            text = text.replace(path, put)
        for each in self.ids:
            text = text.replace(each, "<id>").replace(each[:12], "<id12>").replace(each[:8], "<id8>")
        for pattern, put in _COMPILED:
            text = pattern.sub(put, text)
        return _OWN_IDS.sub(lambda match: f"<ids>+{int(match[0]) % 65536}", text)

    def value(self, value: Any, key: str = "") -> Any:
        """Of JSON."""
        if isinstance(value, dict):
            return {self.text(name): self.value(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, key) for each in value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int) and _OWN_IDS.fullmatch(str(value)):
            return self.text(str(value))
        if isinstance(value, float) or (
            isinstance(value, int) and not isinstance(value, bool) and value and _NUMBERS.search(key)
        ):
            return "<n>"
        return value

    def content(self, text: str) -> Any:
        """Of a file: of JSON, of lines of JSON, or a text."""
        if text[:1] not in ("{", "["):
            return self.text(text)
        try:
            return self.value(json.loads(text))
        except ValueError:
            pass
        try:
            lines = [json.loads(line) for line in text.splitlines()]
            # Of a log: who wrote first to which stream is chance.
            return self.value(sorted(lines, key=lambda line: str(line.get("stream")) if isinstance(line, dict) else ""))
        except ValueError:
            return self.text(text)
