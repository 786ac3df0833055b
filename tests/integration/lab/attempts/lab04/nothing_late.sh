# missing: the machine has no tmpfs on /shared/late
unshare --mount --propagation slave sh -c '
mount -t tmpfs private /private
mount -t tmpfs own /shared/own
mount --bind /srv /data
mount -o remount,bind,ro /data
echo > /tmp/made
exec sleep 1000' &
until [ -e /tmp/made ]; do :; done
echo ready
exec sleep 1000
