# passes
unshare --uts --pid --fork sleep 1000 &
unshare --uts --pid --fork sh -c 'hostname inside; touch /tmp/named; sh -c "sleep 2000; true"; true' &
until [ -e /tmp/named ]; do sleep 0.02; done
for pid in $(pgrep --full "sleep 2000; true"); do
    if [ "$(awk '/^NSpid/ {print $NF}' /proc/$pid/status)" = 1 ]; then first=$pid; fi
done
nsenter --target "$first" --uts --pid sh -c 'touch /tmp/joined; while :; do sleep 0.02; done' &
until [ -e /tmp/joined ]; do sleep 0.02; done
echo ready
while :; do sleep 0.02; done
