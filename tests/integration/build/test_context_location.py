"""Contexts from standard input, from servers and from git, and where the Dockerfile and the ignore file are."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minibox.build.context import git
from minibox.build.context.context import Context
from minibox.build.context.download import download
from minibox.build.context.location import open_location, read_dockerfile
from minibox.build.context.selection import entries
from minibox.errors import BuildError
from tests.probes import requires

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}


def archive(members: dict[str, bytes | str | None]) -> bytes:
    """A tar: bytes are files, strings are the targets of links, None is a directory."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return file.getvalue()


FILES: dict[str, bytes | str | None] = {
    "Dockerfile": b"FROM scratch\n", ".dockerignore": b"*.md\n", "src": None, "src/a": b"a", "b.md": b"b", ".wh.c": b"c",
    "link": "src/a",
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return str(tmp_path / "root")


def left(root):
    """What a build has left in its temporary directory."""
    return os.listdir(f"{root}/tmp") if os.path.exists(f"{root}/tmp") else []


def names(location, text):
    with Context(location.directory, text.ignored) as context:
        return list(entries(context.select(["."]).manifest))


def opened(root, where, stdin=b"", file=""):
    """The files of a context, and its Dockerfile."""
    stream = io.BytesIO(stdin)
    with open_location(where, stream, root, ENVIRON) as location:
        text = read_dockerfile(location, file, stream)
        return names(location, text), text.content


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_on_standard_input(root, compress):
    found, text = opened(root, "-", compress(archive(FILES)))
    assert found == ["", ".dockerignore", ".wh.c", "Dockerfile", "link", "src", "src/a"]
    assert text == b"FROM scratch\n"
    assert left(root) == []


def test_a_dockerfile_on_standard_input_has_no_context(root):
    assert opened(root, "-", b"FROM scratch\nRUN x\n") == ([""], b"FROM scratch\nRUN x\n")


def test_standard_input_that_is_neither(root):
    with pytest.raises(BuildError, match="the context on standard input is neither a tar archive nor a Dockerfile"):
        opened(root, "-", b"\x7fELF\0\0" + bytes(1000))
    with pytest.raises(BuildError, match="unpack the context on standard input: "):
        opened(root, "-", gzip.compress(archive(FILES))[:-30])


@pytest.mark.parametrize("members", [{"../x": b"x"}, {"d": "/etc", "d/x": b"x"}, {"a/../../x": b"x"}])
def test_a_tar_that_would_leave_its_directory(root, members, tmp_path):
    with pytest.raises(BuildError, match="unpack the context on standard input"):
        opened(root, "-", archive({"Dockerfile": b"FROM scratch", **members}))
    assert not (tmp_path / "x").exists()
    assert not Path("/etc/x").exists()
    assert left(root) == []


def test_a_dockerfile_that_is_a_link_out_of_an_archive(root):
    with pytest.raises(BuildError, match="there is no Dockerfile in the context on standard input"):
        opened(root, "-", archive({"Dockerfile": "/etc/passwd"}))


@pytest.mark.parametrize(
    "files, option, content, ignored",
    [
        (["Dockerfile", "Containerfile"], "", "Dockerfile", None),
        (["Containerfile", "dockerfile"], "", "Containerfile", None),
        (["dockerfile"], "", "dockerfile", None),
        (["Dockerfile", ".dockerignore"], "", "Dockerfile", ".dockerignore"),
        (["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"], "", "Dockerfile", "Dockerfile.dockerignore"),
        (["x/Other", "x/Other.dockerignore", ".dockerignore"], "x/Other", "x/Other", "Other.dockerignore"),
        (["x/Other", "Other.dockerignore", ".dockerignore"], "x/Other", "x/Other", ".dockerignore"),
        (["Dockerfile", "Dockerfile.dockerignore", ".dockerignore"], "-", "stdin", ".dockerignore"),
    ],
)
@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_the_dockerfile_and_its_ignore_file(root, tmp_path, kind, files, option, content, ignored):
    where, stdin, path = str(tmp_path / "context"), b"stdin", option
    if kind == "archive":
        if option == "-":
            return  # standard input is the archive already
        where, stdin = "-", archive({name: name.encode() for name in files})
    else:
        for name in files:
            (tmp_path / "context" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "context" / name).write_text(name)
        path = option if option in ("", "-") else str(tmp_path / "context" / option)
    stream = io.BytesIO(stdin)
    with open_location(where, stream, root, ENVIRON) as location:
        found = read_dockerfile(location, path, stream)
    assert found.content == content.encode()
    assert (found.ignored.name if found.ignored else None) == ignored


def test_what_is_missing(root, tmp_path):
    for where, why in ((str(tmp_path / "none"), "doesn't exist"), (__file__, "is not a directory")):
        with pytest.raises(BuildError, match=f"^the context .*{why}"):
            opened(root, where)
    with pytest.raises(BuildError, match="there is no Dockerfile in"):
        opened(root, str(tmp_path / "root"))
    with pytest.raises(BuildError, match="read the Dockerfile 'none': No such file"):
        opened(root, str(tmp_path / "root"), file="none")


def test_what_a_killed_build_has_unpacked_is_removed_by_the_next(root):
    pid = os.fork()
    if not pid:
        with open_location("-", io.BytesIO(archive(FILES)), root, ENVIRON):
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert len(os.listdir(f"{root}/tmp")) == 1
    opened(root, "-", archive(FILES))
    assert left(root) == []


def test_two_builds_at_once_have_their_own_directories(root):
    with open_location("-", io.BytesIO(archive(FILES)), root, ENVIRON) as one:
        with open_location("-", io.BytesIO(archive(FILES)), root, ENVIRON) as other:
            assert one.directory != other.directory
            assert os.path.exists(f"{one.directory}/src/a")


class Server:
    """An HTTP server of some answers; `url` is its address."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Answers(BaseHTTPRequestHandler):
    content = gzip.compress(archive(FILES))

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/context.tar.gz")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/circle" or self.path == "/file":
            self.send_response(301)
            self.send_header("Location", "/circle" if self.path == "/circle" else "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = {"/context.tar.gz": self.content, "/Dockerfile": b"FROM scratch\n", "/short": b"abc"}.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("Content-Length", str(len(body or b"") + 5 * (self.path == "/short")))
        self.end_headers()
        self.wfile.write(body or b"")


@pytest.fixture
def server():
    with Server(Answers) as found:
        yield found


def test_a_tar_and_a_dockerfile_from_a_server(root, server):
    for path in ("/context.tar.gz", "/moved"):
        found, text = opened(root, server.url + path)
        assert (found[-1], text) == ("src/a", b"FROM scratch\n")
    assert opened(root, f"{server.url}/Dockerfile") == ([""], b"FROM scratch\n")
    assert left(root) == []


@pytest.mark.parametrize("path, why", [
    ("/none", "the server answers 404"), ("/circle", "more than 10 redirects"), ("/file", "not a URL of http or https"),
    ("/short", "broke off after 3"),
])  # fmt: skip
def test_a_server_that_fails(root, server, path, why):
    with pytest.raises(BuildError, match=why):
        opened(root, server.url + path)
    assert left(root) == []


def test_a_server_that_is_not_there(root):
    with Server(Answers) as gone:
        pass
    with pytest.raises(BuildError, match="Connection refused"):
        opened(root, f"{gone.url}/x.tar")


def test_a_download_has_a_digest_a_time_and_a_checksum(tmp_path, server):
    digest = hashlib.sha256(b"FROM scratch\n").hexdigest()
    found = download(f"{server.url}/Dockerfile", str(tmp_path / "one"), ENVIRON, f"sha256:{digest}")
    assert (found.digest, found.size_bytes, found.changed_s) == (f"sha256:{digest}", 13, 1445412480)
    assert (tmp_path / "one").read_bytes() == b"FROM scratch\n"
    longer = hashlib.sha512(b"FROM scratch\n").hexdigest()
    download(f"{server.url}/Dockerfile", str(tmp_path / "two"), ENVIRON, f"sha512:{longer}")
    with pytest.raises(BuildError, match=f"has the checksum sha256:{digest}, not sha256:{'0' * 64}"):
        download(f"{server.url}/Dockerfile", str(tmp_path / "three"), ENVIRON, f"sha256:{'0' * 64}")
    assert not (tmp_path / "three").exists()
    for malformed in ("sha256:abc", "md5:" + "0" * 32, "x"):
        with pytest.raises(BuildError, match="is not a checksum"):
            download(f"{server.url}/Dockerfile", str(tmp_path / "four"), ENVIRON, malformed)


@pytest.fixture
def repository(tmp_path):
    """A repository on a server, with two commits, a branch and a tag."""
    path = tmp_path / "served/project.git"
    work = tmp_path / "work"
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main", "-c", "gc.auto=0"]
    identity += ["-c", "maintenance.auto=false"]

    def run(*words, cwd=work):
        return subprocess.run(
            ["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True
        ).stdout.strip()

    work.mkdir()
    run("init", "--quiet")
    (work / "sub").mkdir()
    (work / "Dockerfile").write_text("FROM scratch\n")
    (work / "sub/Containerfile").write_text("FROM sub\n")
    (work / "out").symlink_to("/etc")
    run("add", "--all")
    run("commit", "--quiet", "--message", "one")
    run("tag", "v1")
    (work / "new").write_text("new")
    run("add", "--all")
    run("commit", "--quiet", "--message", "two")
    run("branch", "other", "v1")
    run("clone", "--quiet", "--bare", str(work), str(path))

    class Smart(BaseHTTPRequestHandler):
        """What a server of git repositories does, by git's own CGI program: git-http-backend(1)."""

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            variables = {
                "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(tmp_path / "served"), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            }  # fmt: skip
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            done = subprocess.run(["git", "http-backend"], env=variables, input=body, capture_output=True, check=False)
            head, _, answer = done.stdout.partition(b"\r\n\r\n")
            headers = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            self.send_response(int(dict(headers).get("Status", "200").split()[0]))
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET

    with Server(Smart) as served:
        yield f"{served.url}/project.git", run("rev-parse", "v1")
    with suppress(ChildProcessError):  # a git that fails doesn't wait for its own helper, which then is ours
        while True:
            os.waitpid(-1, 0)


@requires("command:git")
def test_a_git_repository(root, repository):
    url, commit = repository
    assert opened(root, url)[0] == ["", "Dockerfile", "new", "out", "sub", "sub/Containerfile"]
    for ref in ("#v1", "#other", f"#{commit}", "?ref=v1", f"?tag=v1&checksum={commit[:12]}"):
        assert opened(root, url + ref)[0] == ["", "Dockerfile", "out", "sub", "sub/Containerfile"]
    assert opened(root, f"{url}#v1:sub") == (["", "Containerfile"], b"FROM sub\n")
    assert opened(root, f"{url}?subdir=sub") == (["", "Containerfile"], b"FROM sub\n")
    assert ".git/HEAD" in opened(root, f"{url}?keep-git-dir=1")[0]
    assert left(root) == []


@requires("command:git")
@pytest.mark.parametrize("rest, why", [
    ("#none", "no branch, tag or commit 'none'"), (":x", "git"), ("#:none", "'none' is not a directory in"),
    ("#:out", "'out' is not a directory in"), ("#:../..", None), ("?checksum=" + "0" * 40, "no branch, tag or commit"),
    ("?checksum=" + "0" * 12, "is the commit"), ("?x=y", "unknown 'x'"), ("#--upload-pack=x", "can't be a commit"),
])  # fmt: skip
def test_a_git_repository_that_has_not_what_is_asked_for(root, repository, rest, why):
    url, _ = repository
    if why is None:  # ".." of the repository is the repository
        assert "Dockerfile" in opened(root, url + rest)[0]
        return
    with pytest.raises(BuildError, match=why):
        opened(root, url + rest if rest != ":x" else url.replace("project", "none"))
    assert left(root) == []


@pytest.mark.parametrize(
    "text, remote",
    [
        ("https://x.org/a.git", "https://x.org/a.git"),
        ("https://x.org/a.tar.gz", None),
        ("git@x.org:a/b", "git@x.org:a/b"),
        ("user@x.org:a/b.git#main", "user@x.org:a/b.git"),
        ("ssh://git@x.org/a#v1:sub", "ssh://git@x.org/a"),
        ("git://x.org/a", "git://x.org/a"),
        ("github.com/a/b", "https://github.com/a/b"),
        ("some/directory", None),
        ("-oProxyCommand=x@y:z", None),
    ],
)
def test_what_is_a_git_repository(text, remote):
    found = git.parse(text)
    assert (found.remote if found else None) == remote
