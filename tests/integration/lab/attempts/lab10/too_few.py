# missing: lacks CAP_NET_BIND_SERVICE

import os
import sys

from minibox.linux import capset, drop_bounding, no_new_privs, seccomp_filter

KEPT: list[str] = []

drop_bounding(keep=KEPT)
no_new_privs()
seccomp_filter(["mkdir", "mkdirat", "unshare"])
capset(KEPT, KEPT, [])
os.execvp(sys.argv[1], sys.argv[1:])
