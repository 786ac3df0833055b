"""Options of `docker run` that minibox refuses, each by name and with the way out."""

from __future__ import annotations

_WINDOWS = "it is for Windows"
_LINK = "give both a network, where they reach each other by name: --network NAME --network-alias NAME"
#: Why, by option.
REFUSED = {
    "--cpu-count": f"{_WINDOWS}: --cpus",
    "--cpu-percent": f"{_WINDOWS}: --cpus",
    "--disable-content-trust": "minibox checks no signatures: name the image by its digest",
    "--gpus": "give it the devices: --device /dev/dri, or --device /dev/nvidia0 and its libraries with -v",
    "--io-maxbandwidth": f"{_WINDOWS}: --device-read-bps, --device-write-bps",
    "--io-maxiops": f"{_WINDOWS}: --device-read-iops, --device-write-iops",
    "--isolation": _WINDOWS,
    "--link": _LINK,
    "--runtime": "minibox runs containers itself; other engines take minibox-oci as their runtime",
    "--storage-opt": "limit what it writes with --disk",
    "--use-api-socket": "minibox has no server whose socket a container could use",
    "--volume-driver": "volumes are directories of this host",
}
