"""The real registry, Debian's docker-registry, and what skopeo and podman say of what we push to it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from minibox.image.archive.importer import add_image
from minibox.image.store import ImageStore
from tests import images
from tests.leaks import SLOWNESS
from tests.probes import requires
from tests.registries import basic, digest_of, docker_registry
from tests.unit.layers import tar_of

pytestmark = requires("root", "command:docker-registry", "command:htpasswd", "command:openssl")

PASSWORD = "s3cret:pass"


@pytest.fixture(scope="module")
def directory(session_directory, tmp_path_factory) -> Path:
    path = session_directory / tmp_path_factory.mktemp("registries").name
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def registry(directory) -> Iterator[str]:
    """An open registry by HTTP: its host."""
    with docker_registry(directory / "open") as host:
        yield host


@pytest.fixture(scope="module")
def certificate(directory) -> Path:
    """A certificate for 127.0.0.1 by an authority of its own: DIR/ca.pem, DIR/server.pem and DIR/server.key."""
    path = directory / "tls"
    path.mkdir()
    make = [
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
         "-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign"],
        ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=registry"],
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-out", "server.pem", "-extfile", "san"],
    ]  # fmt: skip
    (path / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for arguments in make:
        subprocess.run(["openssl", *arguments], cwd=path, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def private(directory, certificate) -> Iterator[str]:
    """A registry by HTTPS that wants alice's password."""
    hashed = subprocess.run(["htpasswd", "-Bbn", "alice", PASSWORD], capture_output=True, text=True, check=True)
    (directory / "htpasswd").write_text(hashed.stdout)
    with docker_registry(
        directory / "private",
        auth={"htpasswd": {"realm": "the test", "path": str(directory / "htpasswd")}},
        http={"tls": {"certificate": f"{certificate}/server.pem", "key": f"{certificate}/server.key"}},
    ) as host:
        yield host


@pytest.fixture
def home(state) -> dict[str, str]:
    """An environment without logins: to be added to the command's."""
    path = state / "home"
    path.mkdir()
    return {"HOME": str(path), "XDG_RUNTIME_DIR": str(path / "run"), "XDG_CONFIG_HOME": str(path / ".config")}


def done(completed: Any) -> str:
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def run(*command: Any, **options: Any) -> str:
    return done(subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options))


def make(root: Path, name: str, **files: bytes) -> str:
    """An image of `base` and ``files`` in the store; its digest."""
    images.derive(root, name, *(images.file(path, content) for path, content in files.items()))
    return ImageStore(str(root)).resolve(name).digest


# ---- round trips ------------------------------------------------------------------------------------


def test_pushed_and_pulled_elsewhere_it_is_the_same_and_runs(minibox, state, registry):
    name = f"{registry}/team/app:1"
    digest = make(state / "root", name, hello=b"from the registry\n")
    out = done(minibox("push", name))
    assert out.startswith(f"The push refers to repository [{registry}/team/app]\n")
    assert out.endswith(f"1: digest: {digest} size: {len(ImageStore(str(state / 'root')).layout.read_blob(digest))}\n")
    assert out.count(": Pushed\n") == 2
    assert done(minibox("push", name)).count(": Layer already exists\n") == 2

    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    first, *states, status, last = done(minibox("pull", name, env=elsewhere)).splitlines()
    assert first == "1: Pulling from team/app"
    assert [line.partition(": ")[2] for line in states].count("Pull complete") == 2
    assert states[-1] == f"Digest: {digest}"
    assert (status, last) == (f"Status: Downloaded newer image for {name}", name)
    assert f"Status: Image is up to date for {name}\n" in done(minibox("pull", name, env=elsewhere))
    assert done(minibox("pull", "--quiet", name, env=elsewhere)) == f"{name}\n"
    ran = minibox("run", "--rm", "--network", "none", "--pull", "never", name, "cat", "/hello", env=elsewhere)
    assert done(ran) == "from the registry\n"


def test_an_image_without_layers_is_pushed_and_pulled(minibox, state, registry):
    name = f"{registry}/team/config:1"
    (state / "context").mkdir()
    (state / "context/Dockerfile").write_text("FROM scratch\nLABEL kind=config\n")
    done(minibox("build", "-t", name, str(state / "context")))
    done(minibox("push", name))
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert (seen["Labels"], seen["Layers"] or []) == ({"kind": "config"}, [])
    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    done(minibox("pull", name, env=elsewhere))
    found = json.loads(done(minibox("image", "inspect", name, env=elsewhere)))[0]
    assert found["Config"]["Labels"] == {"kind": "config"}
    assert "has no layers" in minibox("run", "--rm", "--pull", "never", name, "true", env=elsewhere).stderr


def test_a_build_for_several_platforms_is_pushed_whole(minibox, state, registry):
    name = f"{registry}/team/both:1"
    (state / "context").mkdir()
    (state / "context/Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n")
    for each in ("amd64", "arm64"):
        (state / "context" / each).write_text(each)
    done(minibox("build", "-t", name, "--platform", "linux/amd64,linux/arm64", "--push", str(state / "context")))
    index = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    for each in ("amd64", "arm64"):
        inspect = ("inspect", "--tls-verify=false", f"docker://{name}")
        assert json.loads(run("skopeo", "--override-arch", each, *inspect))["Architecture"] == each


def test_a_builds_cache_is_kept_by_a_registry(minibox, state, registry):
    name = f"{registry}/team/cache:1"
    (state / "context").mkdir()
    text = "FROM base AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM base\nCOPY --from=one /one /\n"
    (state / "context/Dockerfile").write_text(text)
    build = ("build", "--network", "none", "--why", "-t", "app")
    to = ("--cache-to", f"type=registry,ref={name},mode=max")
    done(minibox(*build, *to, str(state / "context")))
    manifest = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert manifest["artifactType"] == "application/vnd.minibox.build-cache.v1"
    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    again = minibox(*build, "--cache-from", name, str(state / "context"), env=elsewhere)
    done(again)
    assert again.stderr.count(f" in the cache {name}, made ") == 2
    image_id = ("image", "inspect", "--format", "{{.Id}}", "app")
    assert done(minibox(*image_id, env=elsewhere)) == done(minibox(*image_id))
    (state / "context/Dockerfile").write_text("FROM scratch\n")  # without a line
    done(minibox(*build, *to, str(state / "context")))
    assert json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"))["layers"] == []
    done(minibox(*build, "--cache-from", name, str(state / "context"), env=elsewhere))


def test_run_pulls_what_is_missing(minibox, state, registry):
    name = f"{registry}/run/app"
    make(state / "root", name, version=b"1")
    done(minibox("push", name))
    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    command = ("--rm", "--network", "none", name, "cat", "/version")
    refused = minibox("run", "--pull", "never", *command, env=elsewhere)
    assert refused.returncode == 125 and f"minibox pull {name}:latest" in refused.stderr
    pulled = minibox("run", *command, env=elsewhere)
    assert done(pulled) == "1"
    assert f"Status: Downloaded newer image for {name}:latest" in pulled.stderr
    assert minibox("run", *command, env=elsewhere).stderr == ""
    make(state / "root", name, version=b"2")
    done(minibox("push", name))
    assert done(minibox("run", *command, env=elsewhere)) == "1"
    assert done(minibox("run", "--pull", "always", *command, env=elsewhere)) == "2"
    missing = minibox("run", "--rm", f"{registry}/run/none", "true", env=elsewhere)
    assert missing.returncode == 125
    assert f"is not in the store at {elsewhere['MINIBOX_ROOT']}/images, and pulling it failed" in missing.stderr
    assert "404" in missing.stderr


@requires("user")
def test_ordinary_user_pulls_and_runs(minibox, minibox_user, state, registry):
    name = f"{registry}/user/app:1"
    images.derive(state / "root", name, images.file("mine", b"a user's\n", uid=5, gid=5, mode=0o640))
    done(minibox("push", name))
    assert done(minibox_user("run", "--rm", "--network", "none", name, "stat", "-c", "%u:%g", "/mine")) == "5:5\n"
    assert done(minibox_user("pull", name)).endswith(f"Status: Image is up to date for {name}\n{name}\n")


def test_all_tags(minibox, state, registry):
    for tag in ("1", "2"):
        make(state / "root", f"{registry}/many:{tag}", tag=tag.encode())
    assert done(minibox("push", "--all-tags", f"{registry}/many")).count(" digest: sha256:") == 2
    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    done(minibox("pull", "--all-tags", f"{registry}/many", env=elsewhere))
    assert ImageStore(elsewhere["MINIBOX_ROOT"]).names() == (f"{registry}/many:1", f"{registry}/many:2")


def test_layers_are_mounted_from_another_repository(minibox, state, registry):
    digest = make(state / "root", f"{registry}/first:1", a=b"mounted")
    done(minibox("push", f"{registry}/first:1"))
    store = ImageStore(str(state / "root"))
    store.layout.set_name(f"{registry}/second:1", {"mediaType": "application/vnd.oci.image.manifest.v1+json",
                          "digest": digest, "size": len(store.layout.read_blob(digest))})  # fmt: skip
    assert done(minibox("push", f"{registry}/second:1")).count(": Mounted from first\n") == 2


@requires("command:skopeo")
def test_skopeo_reads_what_we_push_and_we_what_skopeo_copies(minibox, state, registry):
    name = f"{registry}/skopeo:ours"
    digest = make(state / "root", name, a=b"1")
    done(minibox("push", name))
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert seen["Digest"] == digest
    # Docker's schema 2, compressed: its bytes stay as they are.
    copy = ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    theirs = f"{registry}/skopeo:theirs"
    run(*copy, "--format", "v2s2", f"docker://{name}", f"docker://{theirs}")
    digest = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{theirs}"))["Digest"]
    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    assert f"Digest: {digest}\n" in done(minibox("pull", theirs, env=elsewhere))
    layout = ImageStore(elsewhere["MINIBOX_ROOT"]).layout
    assert "docker" in json.loads(layout.read_blob(digest))["mediaType"]
    assert done(minibox("run", "--rm", "--network", "none", theirs, "cat", "/a", env=elsewhere)) == "1"
    assert "theirs: digest: " + digest in done(minibox("push", theirs, env=elsewhere))


@requires("command:podman")
def test_podman_pulls_what_we_push(minibox, state, registry):
    name = f"{registry}/podman:1"
    digest = make(state / "root", name, a=b"1")
    done(minibox("push", name))
    podman = ["podman", "--root", state / "podman", "--runroot", state / "podman-run", "--storage-driver", "vfs"]
    run(*podman, "pull", "--quiet", "--tls-verify=false", name)
    assert run(*podman, "image", "inspect", "--format", "{{.Digest}}", name).strip() == digest
    run(*podman, "rmi", "--all", "--force")


@requires("command:skopeo")
def test_skopeo_reads_the_store_while_it_is_pulled_into(minibox, state, registry):
    name = f"{registry}/busy:1"
    make(state / "root", name, a=os.urandom(1 << 20))
    done(minibox("push", name))
    elsewhere = {"MINIBOX_ROOT": str(state / "elsewhere")}
    done(minibox("pull", name, env=elsewhere))
    make(state / "root", f"{registry}/busy:2", a=os.urandom(30 << 20))
    done(minibox("push", f"{registry}/busy:2"))
    pulling = threading.Thread(target=minibox, args=("pull", f"{registry}/busy:2"), kwargs={"env": elsewhere})
    pulling.start()
    try:
        while pulling.is_alive():
            run("skopeo", "inspect", f"oci:{state}/elsewhere/images:{name}")
    finally:
        pulling.join()


# ---- logins -----------------------------------------------------------------------------------------


def trust(home: dict[str, str], host: str, certificate: Path) -> Path:
    """Let the user of ``home`` trust the registry's authority; the directory that says so."""
    path = Path(home["XDG_CONFIG_HOME"], "containers/certs.d", host)
    path.mkdir(parents=True)
    (path / "ca.crt").write_bytes((certificate / "ca.pem").read_bytes())
    return path


def test_certificate_and_password_are_needed(minibox, state, private, certificate, home):
    name = f"{private}/app:1"
    make(state / "root", name, a=b"private")
    untrusted = minibox("push", name, env=home)
    assert untrusted.returncode == 125
    assert "the certificate is not trusted" in untrusted.stderr and f"certs.d/{private}/ca.crt" in untrusted.stderr
    trust(home, private, certificate)
    anonymous = minibox("push", name, env=home)
    assert anonymous.returncode == 125
    assert f"hint: minibox login {private}" in anonymous.stderr

    login = ("login", "--username", "alice", "--password-stdin", private)
    wrong = minibox(*login, input="wrong\n", env=home)
    assert wrong.returncode == 125 and "refuses the login of 'alice'" in wrong.stderr
    assert not Path(home["HOME"], ".docker").exists()
    right = minibox(*login, input=PASSWORD + "\n", env=home)
    assert done(right) == "Login Succeeded\n"
    assert "stored unencrypted in " + home["HOME"] in right.stderr
    done(minibox("push", name, env=home))
    elsewhere = {**home, "MINIBOX_ROOT": str(state / "elsewhere")}
    done(minibox("pull", name, env=elsewhere))
    assert done(minibox("logout", private, env=home)).startswith(f"Removing login credentials for {private} from ")
    assert done(minibox("logout", private, env=home)) == f"Not logged in to {private}\n"
    assert minibox("pull", name, env=elsewhere).returncode == 125


@requires("command:skopeo")
def test_login_of_ours_is_skopeos_and_the_other_way_round(minibox, state, private, certificate, home):
    trusted = trust(home, private, certificate)
    name = f"{private}/shared:1"
    make(state / "root", name, a=b"shared")
    login = ("login", "--username", "alice", "--password-stdin", private)
    done(minibox(*login, input=PASSWORD, env=home))
    done(minibox("push", name, env=home))
    environment = {"PATH": os.environ["PATH"], **home}
    Path(home["XDG_RUNTIME_DIR"], "containers").mkdir(parents=True)
    skopeo = ["skopeo", "inspect", "--cert-dir", trusted, f"docker://{name}"]
    run(*skopeo, env=environment)
    done(minibox("logout", private, env=home))
    run("skopeo", *login[:-1], "--cert-dir", trusted, private, env=environment, input=PASSWORD)
    done(minibox("pull", name, env={**home, "MINIBOX_ROOT": str(state / "elsewhere")}))


def test_login_at_a_terminal(minibox_command, environment, private, certificate, home):
    pexpect = pytest.importorskip("pexpect")
    trust(home, private, certificate)
    refused = pexpect.spawn(*split(minibox_command, "login", "-u", "alice", "-p", "x", private),
                            env={**environment, **home}, timeout=20 * SLOWNESS, encoding="utf-8")  # fmt: skip
    refused.expect("all users of this machine can see it")
    refused.expect(pexpect.EOF)
    refused.close()
    assert refused.exitstatus == 125
    child = pexpect.spawn(*split(minibox_command, "login", private), env={**environment, **home}, timeout=20 * SLOWNESS,
                          encoding="utf-8")  # fmt: skip
    child.expect(f"Username at {private}: ")
    child.sendline("alice")
    child.expect("Password: ")
    child.sendline(PASSWORD)
    child.expect("Login Succeeded")
    child.expect(pexpect.EOF)
    assert PASSWORD not in child.before
    child.close()


def split(command: list[str], *words: str) -> tuple[str, list[str]]:
    return command[0], [*command[1:], *words]


def test_configured_certificate_and_insecure_host(minibox, state, private, certificate, home):
    done_config = state / "config.toml"
    name = f"{private}/configured:1"
    environment = {**home, "MINIBOX_CONFIG": str(done_config)}
    for line in (f'ca_file = "{certificate}/ca.pem"', "insecure = true"):
        done_config.write_text(f'[registries."{private}"]\n{line}\n')
        refused = minibox("pull", name, env=environment)
        assert f"minibox login {private}" in refused.stderr and "certificate" not in refused.stderr


def test_mirror_is_asked_first_and_the_registry_itself_when_it_has_not(minibox, state, registry, directory, home):
    make(state / "root", f"{registry}/hub/library/mirrored:1", a=b"mirror")
    done(minibox("push", f"{registry}/hub/library/mirrored:1"))
    config = state / "config.toml"
    environment = {**home, "MINIBOX_CONFIG": str(config), "MINIBOX_ROOT": str(state / "elsewhere")}
    config.write_text(f'[registries."docker.io"]\nmirrors = ["127.0.0.1:1", "http://{registry}/hub"]\n')
    assert "docker.io/library/mirrored:1\n" in done(minibox("pull", "mirrored:1", env=environment))
    missing = minibox("pull", "mirrored:2", env=environment)
    assert missing.returncode == 125 and "registry-1.docker.io" in missing.stderr
    config.write_text(f'[registries."r.example"]\nlocation = "{registry}/hub/library"\n')
    assert "r.example/mirrored:1\n" in done(minibox("pull", "r.example/mirrored:1", env=environment))
    config.write_text('[registries."r.example"]\nmirors = []\n')
    wrong = minibox("pull", "r.example/mirrored:1", env=environment)
    assert wrong.returncode == 125 and f'{config}: registries."r.example".mirors is unknown' in wrong.stderr


# ---- tokens -----------------------------------------------------------------------------------------


class TokenServer:
    """Gives alice tokens that docker-registry takes: JWTs signed by a key whose certificate it has."""

    def __init__(self, certificate: Path) -> None:
        server = self
        self.certificate = certificate
        self.asked: list[dict[str, list[str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                server.asked.append(query)
                known = self.headers.get("Authorization") == basic("alice", PASSWORD)
                body = json.dumps({"token": server.token(query.get("scope", []))}).encode() if known else b"{}"
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/token"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def token(self, scopes: list[str]) -> str:
        der = ssl.PEM_cert_to_DER_cert((self.certificate / "server.pem").read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [_base64(der, urlsafe=False)]}
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {"iss": "issuer", "sub": "alice", "aud": "the registry", "exp": int(time.time()) + 60,
                  "nbf": int(time.time()) - 60, "iat": int(time.time()), "jti": "1", "access": access}  # fmt: skip
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        key = self.certificate / "server.key"
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=signed.encode(),
                                   capture_output=True, check=True).stdout  # fmt: skip
        return f"{signed}.{_base64(signature)}"


def _base64(data: bytes, urlsafe: bool = True) -> str:
    import base64

    return base64.urlsafe_b64encode(data).decode().rstrip("=") if urlsafe else base64.b64encode(data).decode()


def test_tokens(minibox, state, directory, certificate, home):
    server = TokenServer(certificate)
    try:
        auth = {"token": {"realm": server.url, "service": "the registry", "issuer": "issuer",
                          "rootcertbundle": f"{certificate}/ca.pem"}}  # fmt: skip
        with docker_registry(directory / "token", auth=auth) as host:
            name = f"{host}/team/app:1"
            make(state / "root", name, a=b"1")
            assert "minibox login" in minibox("push", name, env=home).stderr
            login = ("login", "--username", "alice", "--password-stdin", host)
            assert minibox(*login, input="wrong", env=home).returncode == 125
            done(minibox(*login, input=PASSWORD, env=home))
            server.asked.clear()
            done(minibox("push", name, env=home))
            (asked,) = server.asked
            assert asked["scope"] == ["repository:team/app:pull,push"]
            assert asked["account"] == ["alice"]
            done(minibox("pull", name, env={**home, "MINIBOX_ROOT": str(state / "elsewhere")}))
            assert server.asked[-1]["scope"] == ["repository:team/app:pull"]
    finally:
        server.close()


# ---- many at once -----------------------------------------------------------------------------------


def test_eight_pulls_at_once_of_which_three_are_killed(minibox, minibox_command, environment, state, registry):
    """Overlapping images: each has the same big layer, shares one with a neighbour, and has one of its own."""
    shared = [tar_of({f"shared{number}": os.urandom(3 << 20)}).getvalue() for number in range(5)]
    names = [f"{registry}/overlap/app:{number}" for number in range(4)]
    source = ImageStore(str(state / "root"))
    for number, name in enumerate(names):
        own = tar_of({f"own{number}": os.urandom(1 << 20)}).getvalue()
        tars = [shared[4], shared[number], shared[(number + 1) % 4], own]
        add_image(source.layout, name, [_file(tar) for tar in tars], {"Cmd": [f"/own{number}"]})
        done(minibox("push", name))

    root = state / "elsewhere"
    env = {**environment, "MINIBOX_ROOT": str(root)}
    pulls = [
        subprocess.Popen([*minibox_command, "pull", names[number % 4]], env=env, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True)
        for number in range(8)
    ]  # fmt: skip
    deadline = time.monotonic() + 30 * SLOWNESS
    while not list(root.glob("tmp/*.partial")) and time.monotonic() < deadline:
        time.sleep(0.005)
    for process in pulls[:3]:
        process.send_signal(signal.SIGKILL)
        time.sleep(0.03)
    for process in pulls:
        _, said = process.communicate(timeout=60 * SLOWNESS)
        assert process in pulls[:3] or process.returncode == 0, said

    store = ImageStore(str(root))
    assert store.names() == tuple(sorted(names))  # each was pulled by one at least that lived
    check = minibox("system", "check", env={"MINIBOX_ROOT": str(root)})
    assert check.returncode == 0, check.stdout + check.stderr
    for blob in root.glob("images/blobs/sha256/*"):
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    for number, name in enumerate(names):
        image = store.resolve(name)
        assert image.digest == source.resolve(name).digest
        assert (root / "layers" / image.chain_ids[-1][7:] / f"diff/own{number}").stat().st_size == 1 << 20


def _file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def test_the_api_pulls(minibox, registry, api, state):
    """`minibox.Image.pull`: by its name, by its digest, and what isn't there."""
    from minibox import Image, ImageNotFound, RegistryError, run

    name = f"{registry}/api:1"
    minibox("run", "--rm", "--network", "none", "base", "true", check=True)
    minibox("tag", "base", name, check=True)
    assert "digest: sha256:" in minibox("push", name, check=True).stdout
    digest = minibox("image", "inspect", "--format", "{{index .RepoDigests 0}}", name).stdout.strip()
    minibox("rmi", "-f", name, "base", check=True)
    for reference in (name, digest):
        image = Image.pull(reference)
        assert image.names and image.size > 100_000 and Image.get(image.id).id == image.id
        assert run(reference, ["echo", "pulled"], capture_output=True, pull="never").stdout == b"pulled\n"
        image.remove(force=True)
    with pytest.raises(ImageNotFound):
        Image.get(name)
    with pytest.raises(RegistryError, match="api:2"):
        Image.pull(f"{registry}/api:2")
    with pytest.raises(RegistryError, match="refused"):
        Image.pull("127.0.0.1:9/api:1")
