# missing: no_new_privs is missing

import os
import sys

from minibox.linux import capset, drop_bounding, seccomp_filter

KEPT = ["CAP_NET_BIND_SERVICE"]

drop_bounding(keep=KEPT)
seccomp_filter(["mkdir", "mkdirat", "unshare"])
capset(KEPT, KEPT, [])
os.execvp(sys.argv[1], sys.argv[1:])
