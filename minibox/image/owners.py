"""Whose files are, as an image says it: where nothing is id-mapped, those of a user namespace have ids counted from a base.

Of no use for the ids that a whole file system is mounted with: the kernel maps these.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import stat_result

    Owner = tuple[int, int]

CAPABILITY = "security.capability"
# struct vfs_ns_cap_data of linux/capability.h
CAPABILITY_REVISION_2, CAPABILITY_REVISION_3, REVISION_MASK = 0x02000000, 0x03000000, 0xFF000000
# struct posix_acl_xattr_header and posix_acl_xattr_entry (tag, permissions, id) of linux/posix_acl_xattr.h
ACL_HEADER_BYTES = 4
ACL_ENTRY = struct.Struct("<HHI")
ACL_USER, ACL_GROUP = 0x02, 0x08


class Owners:
    """The ids of files whose root's are ``base``."""

    def __init__(self, base: Owner = (0, 0)) -> None:
        self._base = base

    def of(self, status: stat_result) -> Owner:
        """Whose a file is, by its status."""
        return self._counted(status.st_uid, 0), self._counted(status.st_gid, 1)

    def xattr(self, name: str, value: bytes) -> bytes:
        """The value of an extended attribute, whatever ids it has in it."""
        if self._base == (0, 0):
            return value
        if name == CAPABILITY:
            return without_namespace(value)
        if not name.startswith("system.posix_acl_"):
            return value
        entries = bytearray(value[:ACL_HEADER_BYTES])
        for tag, permissions, number in ACL_ENTRY.iter_unpack(value[ACL_HEADER_BYTES:]):
            if tag in (ACL_USER, ACL_GROUP):
                number = self._counted(number, tag == ACL_GROUP)
            entries += ACL_ENTRY.pack(tag, permissions, number)
        return bytes(entries)

    def _counted(self, number: int, which: int) -> int:
        return number - self._base[which] if number >= self._base[which] else number


def without_namespace(capability: bytes) -> bytes:
    """File capabilities without an id of this host: those of revision 3 name a user namespace's root."""
    magic = int.from_bytes(capability[:4], "little")
    if len(capability) != 24 or magic & REVISION_MASK != CAPABILITY_REVISION_3:
        return capability
    return (magic & ~REVISION_MASK | CAPABILITY_REVISION_2).to_bytes(4, "little") + capability[4:20]
