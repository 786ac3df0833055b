"""The OCI image specification 1.1: index, manifest, config, descriptor and layout, field for field.

Source: https://github.com/opencontainers/image-spec/tree/v1.1.0.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TYPE_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TYPE_LAYER_GZIP = MEDIA_TYPE_LAYER + "+gzip"
MEDIA_TYPE_LAYER_ZSTD = MEDIA_TYPE_LAYER + "+zstd"

Platform = TypedDict(
    "Platform",
    {
        "architecture": str,
        "os": str,
        "os.version": NotRequired[str],
        "os.features": NotRequired[list[str]],
        "variant": NotRequired[str],
    },
)


class Descriptor(TypedDict):
    mediaType: str
    digest: str
    size: int
    urls: NotRequired[list[str]]
    annotations: NotRequired[dict[str, str]]
    data: NotRequired[str]
    artifactType: NotRequired[str]
    platform: NotRequired[Platform]


class Index(TypedDict):
    schemaVersion: int
    mediaType: NotRequired[str]
    artifactType: NotRequired[str]
    manifests: list[Descriptor]
    subject: NotRequired[Descriptor]
    annotations: NotRequired[dict[str, str]]


class Manifest(TypedDict):
    schemaVersion: int
    mediaType: NotRequired[str]
    artifactType: NotRequired[str]
    config: Descriptor
    layers: list[Descriptor]
    subject: NotRequired[Descriptor]
    annotations: NotRequired[dict[str, str]]


class Healthcheck(TypedDict, total=False):
    """Docker's addition to the config. Times are in nanoseconds."""

    Test: list[str]
    Interval: int
    Timeout: int
    StartPeriod: int
    StartInterval: int
    Retries: int


class ImageProcess(TypedDict, total=False):
    """The ``config`` member of an image config: how to run its containers."""

    User: str
    ExposedPorts: dict[str, dict[str, Any]] | None
    Env: list[str] | None
    Entrypoint: list[str] | None
    Cmd: list[str] | None
    Volumes: dict[str, dict[str, Any]] | None
    WorkingDir: str
    Labels: dict[str, str] | None
    StopSignal: str
    ArgsEscaped: bool
    Healthcheck: Healthcheck | None
    Shell: list[str] | None
    OnBuild: list[str] | None


class RootFS(TypedDict):
    type: str
    diff_ids: list[str]


class History(TypedDict, total=False):
    created: str
    author: str
    created_by: str
    comment: str
    empty_layer: bool


ImageConfig = TypedDict(
    "ImageConfig",
    {
        "created": NotRequired[str],
        "author": NotRequired[str],
        "architecture": str,
        "os": str,
        "os.version": NotRequired[str],
        "os.features": NotRequired[list[str]],
        "variant": NotRequired[str],
        "config": NotRequired[ImageProcess],
        "rootfs": RootFS,
        "history": NotRequired[list[History]],
    },
)


class ImageLayout(TypedDict):
    imageLayoutVersion: str
