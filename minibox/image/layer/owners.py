"""Convert the owners of files to the image's ids. Without id-mapping, ids of a user namespace are counted from a base.

You don't need this for ids that a mount maps: the kernel converts these.
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
    """Converts the owners of files, where the ids of root are ``base``."""

    def __init__(self, base: Owner = (0, 0)) -> None:
        self._base = base

    def of(self, status: stat_result) -> Owner:
        """Return the owner of a file by its status."""
        return self.of_ids(status.st_uid, status.st_gid)

    def of_ids(self, uid: int, gid: int) -> Owner:
        """Return an owner on disk in the image's ids."""
        return self._counted(uid, 0), self._counted(gid, 1)

    def xattr(self, name: str, value: bytes) -> bytes:
        """Return the value of an extended attribute, with the ids in it converted."""
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
    """Remove this host's id from file capabilities: those of revision 3 contain the id of a user namespace's root."""
    magic = int.from_bytes(capability[:4], "little")
    if len(capability) != 24 or magic & REVISION_MASK != CAPABILITY_REVISION_3:
        return capability
    return (magic & ~REVISION_MASK | CAPABILITY_REVISION_2).to_bytes(4, "little") + capability[4:20]
