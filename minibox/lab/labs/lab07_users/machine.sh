awk '$1 == 0 || $1 == 1 { count += $3 } END { exit count < 3000 }' /proc/self/uid_map || {
    echo "this lab needs subordinate ids for you: see docs/rootless.md, \"Ids\"" >&2
    exit 1
}
mkdir -p /srv/drop
chmod 1777 /srv/drop
