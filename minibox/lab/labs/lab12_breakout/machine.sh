# The machine is the host of this lab: it has a daemon, and starts containers by /opt/lab/container.
command -v setpriv >/dev/null || { echo "this lab needs setpriv (util-linux) on this host" >&2; exit 1; }
mkdir -p /jail
# Where this Python's modules lie.
echo "$PYTHONPATH" | tr : '\n' | sed -n 's|^/||p' | grep -Ev '^(usr|lib|lab)/' >/run/modules || true
/opt/lab/python3 /opt/lab/hostd </dev/null >/dev/null 2>&1 &
until [ "$(cat /proc/$!/comm)" = hostd-0 ]; do :; done
