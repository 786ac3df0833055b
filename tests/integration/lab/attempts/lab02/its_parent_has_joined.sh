# missing: its parent is or was in there, too
unshare --uts --pid --fork sh -c 'hostname inside; touch /tmp/named; exec sleep 1000' &
until [ -e /tmp/named ]; do sleep 0.02; done
nsenter --target "$(pgrep -x sleep | tail -n 1)" --uts --pid sh -c 'sleep 2000 & touch /tmp/joined'
echo ready
exec tail -f /dev/null
