"""Each kind of line, as root and as an ordinary user: what it makes of the image."""

from __future__ import annotations

import io
import os
import tarfile

from tests.integration.build.conftest import Builder, cached


def test_a_small_dockerfile_builds_runs_and_is_found_again(builder: Builder) -> None:
    builder.file("a.txt", "hello\n")
    builder.file("d/e/f", "deep\n")
    text = """\
FROM base
ARG VERSION=1
ENV NAME=x
RUN echo $NAME $VERSION > /made
WORKDIR /app
COPY a.txt d ./
USER 1000:1000
RUN id -u > /tmp/id
EXPOSE 80 53/udp
VOLUME /data
LABEL one=1 two="2 3"
STOPSIGNAL SIGINT
ENTRYPOINT ["cat"]
CMD ["/app/a.txt"]
"""
    first = builder.ok(text)
    assert not any(cached(first)[1:])
    assert builder.sh("cat /made /app/a.txt /app/e/f /tmp/id; stat -c %u:%g /app/a.txt /tmp/id") == (
        "x 1\nhello\ndeep\n1000\n0:0\n1000:1000"
    )
    assert builder.box.ok("run", "--rm", "built") == "hello"
    config = builder.config()
    assert config["Env"][-1] == "NAME=x"
    assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/app", "1000:1000", "SIGINT")
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["Volumes"] == {"/data": {}}
    assert config["Labels"].items() >= {"one": "1", "two": "2 3"}.items()
    assert (config["Entrypoint"], config["Cmd"]) == (["cat"], ["/app/a.txt"])
    before = builder.image()["Id"]
    again = builder.ok(text)
    assert all(cached(again)[1:])
    assert builder.image()["Id"] == before
    assert builder.box.ok("ps", "-a", "-q") == ""


def test_a_line_that_changes_nothing_makes_no_layer(builder: Builder) -> None:
    builder.ok("FROM base\nRUN true\nRUN : > /dev/null\nRUN cat /etc/hosts /etc/resolv.conf\n")
    base = builder.box.ok("image", "inspect", "--format", "{{.RootFS.Layers}}", "base")
    assert builder.box.ok("image", "inspect", "--format", "{{.RootFS.Layers}}", "built") == base


def test_the_sizes_of_new_layers_are_known_without_reading_their_blobs(builder: Builder) -> None:
    builder.file("a", b"x" * 1000)
    builder.ok("FROM base\nCOPY a /a\nRUN ln /a /b && printf 12345 > /c && rm /bin/sh\n")
    notes = builder.box.directory / "root/cache/size"
    noted = {path.name: os.readlink(path) for path in notes.iterdir()}
    assert {"1000", "1005"} <= set(noted.values())
    for name in noted:
        (notes / name).unlink()
    builder.box.ok("history", "built")  # reads the blobs
    assert {path.name: os.readlink(path) for path in notes.iterdir()} == noted


def test_layers_have_only_what_the_line_wrote(builder: Builder) -> None:
    builder.ok('FROM scratch\nCOPY --from=base /bin /bin\nRUN ["/bin/busybox", "touch", "/x"]\n')
    archive = builder.box("save", "built", text=False)
    assert archive.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as whole:
        layers = [member for member in whole.getmembers() if member.isfile() and member.size]
        names = set()
        for member in layers:
            data = whole.extractfile(member)
            assert data
            try:
                with tarfile.open(fileobj=data) as layer:
                    names |= {name for name in layer.getnames() if not name.startswith("bin/")}
            except tarfile.ReadError:
                continue
    assert names == {"bin", "x"}


def test_a_stage_copies_from_another_and_only_needed_stages_are_built(builder: Builder) -> None:
    lines = builder.ok("""\
FROM base AS unused
RUN false
FROM base AS tool
RUN mkdir -p /out/bin && echo built > /out/bin/tool && chown 7:8 /out/bin/tool && chmod 4755 /out/bin/tool
FROM base
COPY --from=tool /out/ /
COPY --from=base /etc/passwd /copied
""")
    assert not any("false" in line for line in lines)
    assert builder.sh("stat -c '%a %u:%g' /bin/tool; cat /bin/tool; cmp /etc/passwd /copied && ls /bin/sh") == (
        "4755 7:8\nbuilt\n/bin/sh"
    )


def test_a_stage_from_a_stage_goes_on_where_that_ends(builder: Builder) -> None:
    builder.ok("""\
FROM base AS first
ENV A=1
ARG B=2
RUN echo first > /first
FROM first
RUN echo $A $B > /second
""")
    assert builder.sh("cat /first /second; echo $A") == "first\n1 2\n1"
    assert [each for each in builder.config()["Env"] if not each.startswith("PATH")] == ["A=1"]


def test_copy_gives_owner_mode_and_keeps_links(builder: Builder) -> None:
    builder.file("s/a", "a")
    builder.file("s/x.sh", "x", mode=0o755)
    (builder.context / "s/link").symlink_to("a")
    (builder.context / "s/hard").hardlink_to(builder.context / "s/a")
    builder.file("s/sub/.hidden", "h")
    builder.ok("""\
FROM base
COPY --chown=3:4 --chmod=u=rwX,go=rX s /to/
COPY --chown=user s/a /by-name
COPY --chmod=0600 s/a s/x.sh /two/
COPY s/*.sh /globbed/
COPY --parents s/sub /whole/
COPY --exclude=*.sh s /without/
""")
    found = builder.sh("""\
stat -c '%n %a %u:%g' /to /to/a /to/x.sh /to/sub /by-name /two/a /two/x.sh
readlink /to/link; stat -c %h /to/a; ls /globbed; ls -A /whole/s/sub; ls /without
""")
    assert found.splitlines() == [
        "/to 755 3:4", "/to/a 644 3:4", "/to/x.sh 755 3:4", "/to/sub 755 3:4", "/by-name 644 1000:1000",
        "/two/a 600 0:0", "/two/x.sh 600 0:0", "a", "2", "x.sh", ".hidden", "a", "hard", "link", "sub",
    ]  # fmt: skip


def test_copy_follows_the_images_links_below_its_root(builder: Builder) -> None:
    builder.file("a", "a")
    builder.ok(
        "FROM base\nRUN ln -s /real /link && ln -s ../../../../etc /up && mkdir /real\nCOPY a /link/\nCOPY a /up/mine\n"
    )
    assert builder.sh("cat /real/a /etc/mine; test -L /link && echo link") == "aalink"


def test_heredocs(builder: Builder) -> None:
    builder.ok("""\
FROM base
ENV NAME=x
RUN <<END
echo "one $NAME" > /one
echo two > /two
END
RUN <<END
#!/bin/sh -e
echo "$0" > /program
END
RUN cat > /three <<END && echo also > /also
three
END
COPY <<first <<"second" /files/
name $NAME
first
name $NAME
second
""")
    found = builder.sh("cat /one /two /program /three /also /files/first /files/second")
    assert found.splitlines() == [
        "one x", "two", "/dev/pipes/END", "three", "also", "name x", "name $NAME",
    ]  # fmt: skip


def test_add_unpacks_an_archive(builder: Builder) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo("inside/file")
        member.size, member.uid, member.gid, member.mode = 3, 7, 8, 0o640
        archive.addfile(member, io.BytesIO(b"abc"))
    builder.file("a.tar.gz", data.getvalue())
    builder.file("plain", "plain\n")
    builder.ok("FROM base\nADD a.tar.gz plain /to/\nADD --unpack=false a.tar.gz /packed/\nCOPY a.tar.gz /copied/\n")
    found = builder.sh("stat -c '%a %u:%g' /to/inside/file; cat /to/inside/file /to/plain; ls /packed /copied")
    assert found.splitlines() == ["640 7:8", "abcplain", "/copied:", "a.tar.gz", "", "/packed:", "a.tar.gz"]


def test_run_mounts(builder: Builder) -> None:
    builder.file("input", "from the context\n")
    builder.file("../secret", "hush\n")
    text = """\
FROM base AS other
RUN mkdir /d && echo from a stage > /d/f
FROM base
RUN --mount=type=bind,source=input,target=/in cat /in > /1
RUN --mount=type=bind,from=other,source=/d,target=/d cat /d/f > /2
RUN --mount=type=bind,target=/all,rw echo gone > /all/new && cat /all/new > /3
RUN --mount=type=cache,target=/cache echo x >> /cache/count && wc -l < /cache/count > /4
RUN --mount=type=tmpfs,target=/t,size=1m echo t > /t/x && df /t | grep -c tmpfs > /5
RUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null && wc -c < /run/secrets/s > /6
RUN --mount=type=secret,id=s,env=S echo ${#S} > /7
"""
    words = ("--secret", f"id=s,src={builder.context}/../secret")
    builder.ok(text, *words)
    found = builder.sh("cat /1 /2 /3 /4 /5 /6 /7; ls -d /in /d /all /cache /t /run/secrets 2>/dev/null || true")
    assert found.splitlines() == ["from the context", "from a stage", "gone", "1", "1", "5", "5"]
    assert not (builder.context / "new").exists()
    builder.file("../secret", "other\n")
    assert cached(builder.ok(text, *words)).count(False) == 2  # each FROM
    builder.ok(text, *words, "--no-cache")
    assert builder.sh("cat /4") == "2"


def test_a_command_that_fails_is_told_with_its_lines(builder: Builder) -> None:
    done = builder.run("FROM base\nRUN echo before\nRUN echo said; exit 7\nRUN echo after\n")
    assert done.returncode == 1
    assert "said" in done.stderr and "after" not in done.stderr.replace("RUN echo after", "")
    assert ">>> RUN echo said; exit 7" in done.stderr
    assert "Dockerfile:3: RUN '/bin/sh -c echo said; exit 7' failed" in done.stderr
    assert builder.box("image", "inspect", "built").returncode != 0
    assert builder.box.ok("ps", "-a", "-q") == ""


def test_what_is_missing_is_told_with_the_line(builder: Builder) -> None:
    assert "Dockerfile:2" in builder.refused("FROM base\nCOPY nothing /\n")
    assert "Dockerfile:2" in builder.refused("FROM base\nCOPY --from=2 a /\n")
    assert "Dockerfile:2" in builder.refused("FROM base\nRUN --mount=type=secret,id=x,required true\n")
    assert "Dockerfile:2" in builder.refused("FROM base\nRUN --mount=type=bind,source=nothing,target=/x true\n")
    assert "Dockerfile:2:1" in builder.refused("FROM base\nRUNN true\n")


def test_onbuild_and_healthcheck_and_shell(builder: Builder) -> None:
    builder.file("a", "a")
    builder.ok("FROM base\nONBUILD COPY a /triggered\nONBUILD RUN cat /triggered > /again\n", "-t", "parent")
    assert builder.config()["OnBuild"] == ["COPY a /triggered", "RUN cat /triggered > /again"]
    builder.ok("""\
FROM parent
SHELL ["/bin/sh", "-e", "-c"]
HEALTHCHECK --interval=5s --retries=3 CMD true
CMD echo $HOME
""")
    config = builder.config()
    assert builder.sh("cat /again") == "a"
    assert "OnBuild" not in config or not config["OnBuild"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 3}
    assert config["Cmd"] == ["/bin/sh", "-e", "-c", "echo $HOME"]
    assert config["Shell"] == ["/bin/sh", "-e", "-c"]


def test_triggers_of_a_stage_are_carried_out_once(builder: Builder) -> None:
    builder.ok("FROM base AS runtime\nONBUILD RUN echo x >> /count\nFROM runtime AS next\nFROM next\n")
    assert not builder.config().get("OnBuild")
    builder.ok("FROM built\nRUN wc -l < /count > /lines\n")
    assert builder.sh("cat /lines") == "1"
    builder.ok("FROM base AS runtime\nONBUILD RUN true\nFROM runtime\nONBUILD USER 7\n", "--target", "1")
    assert builder.config()["OnBuild"] == ["USER 7"]


def test_files_go_to_a_directory_or_a_tar(builder: Builder) -> None:
    builder.file("a", "a")
    text = "FROM scratch\nCOPY a /x/\n"
    builder.ok(text, "-o", str(builder.context / "out"))
    assert (builder.context / "out/x/a").read_text() == "a"
    done = builder.run(text, "-o", "type=tar,dest=-", text=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["x", "x/a"]
    builder.ok(text, "-o", f"type=oci,dest={builder.context}/image.tar")
    assert "built" in builder.box.ok("load", "-i", str(builder.context / "image.tar"))
