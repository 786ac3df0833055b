# missing: the machine sees /shared/own
unshare --mount --propagation unchanged sh -c '
mount -t tmpfs private /private
mount -t tmpfs own /shared/own
mount --bind /srv /data
mount -o remount,bind,ro /data
echo > /tmp/made
exec sleep 1000' &
until [ -e /tmp/made ]; do :; done
mount -t tmpfs late /shared/late
echo ready
exec sleep 1000
