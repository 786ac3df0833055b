# missing: nobody has joined both of them
unshare --uts --pid --fork sh -c 'hostname inside; echo > /tmp/named; exec sleep 1000' &
until [ -e /tmp/named ]; do :; done
exec nsenter --target "$(pgrep -x sleep)" --pid sh -c 'echo ready; exec sleep 1000'
