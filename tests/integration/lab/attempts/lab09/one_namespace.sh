# missing: are both in the network namespace
set -e
ip link add br0 type bridge
ip address add 10.9.0.1/24 dev br0
ip link set br0 up
unshare --net sleep infinity &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
for number in 2 3; do
    ip link add v$number type veth peer name eth$((number - 2)) netns $!
    ip link set v$number master br0 up
    nsenter --target $! --net ip address add 10.9.0.$number/24 dev eth0 # both on the first
done
nsenter --target $! --net sh -c 'ip link set lo up; ip link set eth0 up; ip route add default via 10.9.0.1'
echo ready
sleep infinity
