# missing: the bounding set of

import os
import sys

from minibox.linux import capset, no_new_privs, seccomp_filter

KEPT = ["CAP_NET_BIND_SERVICE"]

no_new_privs()
seccomp_filter(["mkdir", "mkdirat", "unshare"])
capset(KEPT, KEPT, [])
os.execvp(sys.argv[1], sys.argv[1:])
