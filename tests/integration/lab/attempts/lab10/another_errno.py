# missing: not with EPERM

import os
import sys

from minibox.linux import capset, drop_bounding, no_new_privs, seccomp_filter

KEPT = ["CAP_NET_BIND_SERVICE"]

drop_bounding(keep=KEPT)
no_new_privs()
seccomp_filter(["mkdir", "mkdirat", "unshare"], error=38)
capset(KEPT, KEPT, [])
os.execvp(sys.argv[1], sys.argv[1:])
