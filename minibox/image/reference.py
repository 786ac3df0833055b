"""Image references as Docker users write them: ``base``, ``debian:12``, ``host:5000/team/app@sha256:...``.

Grammar: https://github.com/distribution/reference, with Docker's defaults: registry ``docker.io``,
``library/`` for a bare name there, tag ``latest``. Parsed by hand, since importing ``re`` would add 5 ms to a start.
"""

from __future__ import annotations

from minibox.errors import InvalidReference
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_DOMAIN = "docker.io"
LEGACY_DEFAULT_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
NAME_LENGTH_MAX = 255
TAG_LENGTH_MAX = 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _ALNUM | {"_"}
_TAG = _WORD | {".", "-"}
_HEX = frozenset("0123456789abcdef")
_DIGEST_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}


@record
class Reference:
    """A full reference, with all defaults filled in.

    ``tag`` is empty only if there is a ``digest`` ("sha256:<hex>") and no tag was given.
    """

    domain: str
    path: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The repository: ``docker.io/library/debian``."""
        return f"{self.domain}/{self.path}"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """The short form that a user would write, ``debian:12``, always with the tag."""
        name = self.name
        if self.domain == DEFAULT_DOMAIN:
            name = self.path.removeprefix(OFFICIAL_PREFIX) if self.path.count("/") == 1 else self.path
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Parse a reference, and fill in defaults.

    Raises:
        InvalidReference: ``text`` is not a reference; the message says which part is wrong and why.
    """
    if not text:
        _fail(text, "it is empty", "write NAME[:TAG][@DIGEST], such as debian:12")
    rest, at, digest = text.partition("@")
    if at:
        _check_digest(text, digest)
    slash = rest.rfind("/")
    colon = rest.find(":", slash + 1)
    tag = ""
    if colon >= 0:
        rest, tag = rest[:colon], rest[colon + 1 :]
        _check_tag(text, tag)
    domain, path = _split_domain(text, rest)
    for component in path.split("/"):
        _check_component(text, component)
    if len(domain) + 1 + len(path) > NAME_LENGTH_MAX:
        _fail(text, f"the name is longer than {NAME_LENGTH_MAX} characters")
    if "/" not in rest and len(path) == len(OFFICIAL_PREFIX) + 64 and _HEX.issuperset(rest):
        _fail(text, "64 hexadecimal digits are an image's digest", f"write sha256:{rest}")
    return Reference(domain=domain, path=path, tag=tag or ("" if digest else DEFAULT_TAG), digest=digest)


@record
class ImageName:
    """What a user calls an image: a reference, a digest, or the beginning of an image's id.

    Attributes:
        text: as the user wrote it.
        reference: what the text means as a reference; None for a whole digest.
    """

    text: str
    reference: Reference | None


def parse_name(text: str) -> ImageName:
    """Parse what a user calls an image.

    Raises:
        InvalidReference: as for `parse`.
    """
    return ImageName(text, None if is_digest(text) or is_digest(f"sha256:{text}") else parse(text))


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is ``sha256:`` and 64 lower-case hexadecimal digits: safe as a file name."""
    return len(text) == 71 and text.startswith("sha256:") and _HEX.issuperset(text[7:])


def is_tag(text: str) -> bool:
    """Tell whether ``text`` can be a tag."""
    return 0 < len(text) <= TAG_LENGTH_MAX and _TAG.issuperset(text) and text[0] in _WORD


def _split_domain(text: str, rest: str) -> tuple[str, str]:
    first, slash, remainder = rest.partition("/")
    # As in Docker, the first part is a registry if it can't be a path component.
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = DEFAULT_DOMAIN, rest
    else:
        domain, path = first, remainder
        _check_domain(text, domain)
    if domain == LEGACY_DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL_PREFIX + path
    return domain, path


def _check_domain(text: str, domain: str) -> None:
    host, colon, port = domain, "", ""
    if domain.startswith("["):
        host, bracket, port = domain.partition("]")
        address = host[1:]
        if not bracket or not address or not (_HEX | frozenset("ABCDEF:")).issuperset(address):
            _fail(text, f"{domain!r} is not a registry's address")
        colon, port = port[:1], port[1:]
        if colon not in ("", ":"):
            _fail(text, f"{domain!r} is not a registry's address")
    else:
        host, colon, port = domain.partition(":")
        for label in host.split("."):
            if not label or not (_ALNUM | {"-"}).issuperset(label) or "-" in (label[0], label[-1]):
                _fail(text, f"{domain!r} is not a registry's host name")
    if colon and not (port.isascii() and port.isdigit()):
        _fail(text, f"{domain!r} has a port that is not a number")


def _check_component(text: str, component: str) -> None:
    if not component:
        _fail(text, "a part of the name is empty")
    # [a-z0-9]+ ((. | _ | __ | -+) [a-z0-9]+)*
    separator = "."
    for character in component.lower():
        if character in _LOWER:
            separator = ""
            continue
        if character not in "._-":
            _fail(text, f"{character!r} can't be in a name")
        separator += character
        if separator not in (".", "_", "__") and separator.strip("-"):
            _fail(text, f"{component!r} is not a name: letters or digits must stand around {separator!r}")
    if separator:
        _fail(text, f"{component!r} must end with a letter or a digit")
    if component != component.lower():
        name, at, digest = text.partition("@")
        path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
        written = path.lower() + (f":{tag}" if tag else "") + at + digest
        _fail(text, "the name must be in lower case", f"write {written}")


def _check_tag(text: str, tag: str) -> None:
    if not tag:
        _fail(text, "the tag is empty")
    if len(tag) > TAG_LENGTH_MAX:
        _fail(text, f"the tag is longer than {TAG_LENGTH_MAX} characters")
    if not is_tag(tag):
        _fail(text, f"{tag!r} is not a tag: it may contain letters, digits, '_', '.' and '-'")


def _check_digest(text: str, digest: str) -> None:
    algorithm, _, encoded = digest.partition(":")
    length = _DIGEST_HEX_LENGTH.get(algorithm)
    if length is None:
        _fail(text, f"{digest!r} is not a digest", "a digest is sha256: and 64 hexadecimal digits")
    if len(encoded) != length or not _HEX.issuperset(encoded):
        _fail(text, f"a {algorithm} digest has {length} lower-case hexadecimal digits")


def _fail(text: str, why: str, hint: str | None = None) -> NoReturn:
    # ascii() keeps a reference with control characters on one line.
    raise InvalidReference(f"invalid reference {ascii(text)}: {why}", hint)
