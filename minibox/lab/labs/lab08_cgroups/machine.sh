cd /sys/fs/cgroup
if [ -e cgroup.controllers ]; then
    mkdir -p machine 2>/dev/null &&
        for pid in $(cat cgroup.procs); do echo "$pid" >machine/cgroup.procs || true; done 2>/dev/null && # `cat` has ended
        echo "+memory +pids +cpu" >cgroup.subtree_control
else
    mkdir memory/try pids/try cpu/try 2>/dev/null && rmdir memory/try pids/try cpu/try
fi || {
    echo "this lab needs control groups of your own: cgroup v2 with memory, pids and cpu delegated to you, or root" >&2
    exit 1
}
cd /
