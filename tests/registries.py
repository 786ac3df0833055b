"""Registries for tests: one that does what it is told, also to lie, and Debian's docker-registry."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from minibox.image.platform import host_platform
from tests.leaks import SLOWNESS
from tests.unit.layers import tar_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


class MadeImage:
    """An image in memory: ``manifest`` and ``config`` as bytes, ``layers`` as compressed tars."""

    def __init__(self, *files: dict[str, bytes], config: dict[str, Any] | None = None, **platform: str) -> None:
        tars = [tar_of(content).getvalue() for content in files]
        self.layers = [gzip.compress(tar, 1, mtime=0) for tar in tars]
        value = {
            "os": "linux", "architecture": host_platform().architecture, **platform, "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        }  # fmt: skip
        self.config = json.dumps(value).encode()
        self.manifest = manifest_of(self.config, self.layers)
        self.digest = digest_of(self.manifest)


def manifest_of(config: bytes, layers: list[bytes], more: dict[str, Any] | None = None) -> bytes:
    value = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer, LAYER) for layer in layers], **(more or {}),
    }  # fmt: skip
    return json.dumps(value).encode()


class Answer:
    """A response: what is sent, and whether the connection is cut after so many bytes of it."""

    def __init__(self, status: int = 200, body: bytes = b"", cut_after: int | None = None, **headers: str) -> None:
        self.status, self.body, self.cut_after = status, body, cut_after
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


Rule = Callable[["Request"], "Answer | None"]


class Request:
    """What was asked."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.method, self.path = handler.command, handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.handler = handler

    def read(self, most: int = 1 << 62) -> bytes:
        """The body, or the beginning of it."""
        return self.handler.rfile.read(min(most, int(self.headers.get("content-length", "0"))))


class FakeRegistry:
    """A registry on loopback that can be told to misbehave.

    ``rules`` are asked first, in order, for each request; the first answer is sent.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.uploads: dict[str, bytes] = {}
        self._numbers = itertools.count()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.serve(self)

            do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # a client that is gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, image: MadeImage, *names: str, repository: str = "app") -> MadeImage:
        for name in (*names, image.digest):
            self.manifests[f"{repository}/{name}"] = (MANIFEST, image.manifest)
        for blob in (image.config, *image.layers):
            self.blobs[digest_of(blob)] = blob
        return image

    def rule(self, pattern: str, answer: Answer | Callable[[Request], Answer | None], times: int = 1 << 30) -> None:
        """Answer so what matches ``pattern`` ("GET /v2/app/blobs/"), so many times."""
        left = [times]

        def rule(request: Request) -> Answer | None:
            if left[0] and re.match(pattern, f"{request.method} {request.path}"):
                left[0] -= 1
                return answer if isinstance(answer, Answer) else answer(request)
            return None

        self.rules.append(rule)

    def asked(self, pattern: str) -> list[Request]:
        return [item for item in self.requests if re.match(pattern, f"{item.method} {item.path}")]

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        request = Request(handler)
        self.requests.append(request)
        answer = next((found for rule in self.rules if (found := rule(request)) is not None), None)
        self._send(handler, answer or self.plain(request))

    def plain(self, request: Request) -> Answer:
        """What an honest registry answers."""
        match = re.fullmatch(r"/v2/(.*)/(manifests|blobs)/([^/]+)", request.path)
        if (
            match
            and match[2] == "manifests"
            and request.method != "PUT"
            and (found := self.manifests.get(f"{match[1]}/{match[3]}"))
        ):
            media_type, data = found
            return Answer(200, data, Content_Type=media_type, Docker_Content_Digest=digest_of(data))
        if match and match[2] == "blobs" and (blob := self.blobs.get(match[3])) is not None:
            start = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
            if start and (begin := int(start[1])) < len(blob):
                where = f"bytes {begin}-{len(blob) - 1}/{len(blob)}"
                return Answer(206, blob[begin:], Content_Range=where)
            return Answer(200, blob)
        if request.path.startswith("/v2/app/blobs/uploads/"):
            return self._upload(request)
        if match and match[2] == "manifests" and request.method == "PUT":
            data = request.read()
            self.manifests[f"{match[1]}/{match[3]}"] = (request.headers["content-type"], data)
            return Answer(201, Docker_Content_Digest=digest_of(data))
        return Answer(404, b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')

    def _upload(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        if request.method == "POST":
            path += str(next(self._numbers))
            self.uploads[path] = b""
            return Answer(202, Location=path)
        if path not in self.uploads:
            return Answer(404)
        if request.method in ("PATCH", "PUT"):
            self.uploads[path] += request.read()
        if request.method == "PUT":
            data = self.uploads.pop(path)
            if f"digest={digest_of(data)}".replace(":", "%3A") != query:
                return Answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"another digest"}]}')
            self.blobs[digest_of(data)] = data
            return Answer(201)
        got = len(self.uploads[path])
        return Answer(204 if request.method == "GET" else 202, Location=path, Range=f"0-{max(0, got - 1)}")

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        try:
            handler.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                if value:
                    handler.send_header(name, value)
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(answer.body[: answer.cut_after])
            if answer.cut_after is not None:
                handler.close_connection = True
        except OSError:
            handler.close_connection = True


@contextmanager
def docker_registry(directory: Path, **options: Any) -> Iterator[str]:
    """Debian's docker-registry on a free port of loopback: yields ``127.0.0.1:PORT``.

    Args:
        options: further sections of its configuration: ``auth``, ``proxy``; and for TLS ``http``, merged.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        **options,
        "http": {"addr": address, **options.get("http", {})},
    }
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )  # fmt: skip
    try:
        _wait_listening(address, process, directory / "log")
        yield address
    finally:
        process.kill()
        process.wait()


def _wait_listening(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 20 * SLOWNESS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((host, int(port))).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"docker-registry doesn't listen: {log.read_text()}")


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
