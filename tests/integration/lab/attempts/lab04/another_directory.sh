# missing: is not /srv, but tmpfs
unshare --mount --propagation slave sh -c '
mount -t tmpfs private /private
mount -t tmpfs own /shared/own
mount -t tmpfs data /data
echo > /tmp/made
exec sleep 1000' &
until [ -e /tmp/made ]; do :; done
mount -t tmpfs late /shared/late
echo ready
exec sleep 1000
