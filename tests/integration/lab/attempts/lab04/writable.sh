# missing: is writable: MS_BIND ignores MS_RDONLY
unshare --mount --propagation slave sh -c '
mount -t tmpfs private /private
mount -t tmpfs own /shared/own
mount --bind /srv /data
echo > /tmp/made
exec sleep 1000' &
until [ -e /tmp/made ]; do :; done
mount -t tmpfs late /shared/late
echo ready
exec sleep 1000
