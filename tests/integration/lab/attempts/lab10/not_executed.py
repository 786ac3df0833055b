# missing: isn't executed: os.execvp is missing

import os
import sys

from minibox.linux import capset, drop_bounding, no_new_privs, seccomp_filter

KEPT = ["CAP_NET_BIND_SERVICE"]

drop_bounding(keep=KEPT)
no_new_privs()
seccomp_filter(["mkdir", "mkdirat", "unshare"])
capset(KEPT, KEPT, [])
print("ready")
sys.stdin.close()
os.execvp("sleep", ["sleep", "1000"])
