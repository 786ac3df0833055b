"""The options of one build, as the command line and the Python API give them."""

from __future__ import annotations

from minibox.record import record


@record
class BuildOptions:
    """Options of `docker build`, with the same names and meanings.

    Attributes:
        context: a directory, ``-`` for standard input, or a URL.
        file: the Dockerfile; "" for the context's Dockerfile or Containerfile, ``-`` for standard input.
        tags: names for the image.
        build_args: values for ARG.
        contexts: named contexts: directories, ``docker-image://NAME`` or ``oci-layout://PATH``.
        cache_from, cache_to: caches outside this machine; see `minibox.build.remote_cache.words`.
        no_cache: carry out every line; ``no_cache_filter``: every line of these stages.
        platform: ``OS/ARCH[/VARIANT]``; several, told apart by commas, make an index. "" or ``local`` for this machine's.
        pull: look for newer base images.
        secrets: paths or variables of secrets, by their ids: ``("src", PATH)`` or ``("env", NAME)``.
        ssh: sockets of agents, by their ids.
        outputs: where the result goes; see `minibox.build.image.export`. () stores an image.
        source_date_epoch: files and the image get no later time, in seconds since 1970; None: the times as they are.
        shell: open a shell in the state before a line that fails, if there is a terminal. That state and what the line
            left are kept for it; without a terminal they are always kept.
        userns: ``host`` for RUN without a user namespace: then it may make devices, and own files by any id.
        why: tell for each line why it was reused or not.
    """

    context: str
    file: str = ""
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    contexts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    platform: str = ""
    network: str = "default"
    add_host: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str, str], ...] = ()
    ssh: tuple[tuple[str, str], ...] = ()
    outputs: tuple[str, ...] = ()
    source_date_epoch: int | None = None
    shm_size_bytes: int = 64 << 20
    ulimit: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpuset_cpus: str = ""
    userns: str = ""
    why: bool = False
    shell: bool = False
