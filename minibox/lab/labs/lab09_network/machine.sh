# The world: a network namespace with 192.0.2.1, which the machine reaches by eth0, and which knows no way to other networks.
for command in ip nft; do
    command -v $command >/dev/null || { echo "this lab needs the command $command on this host" >&2; exit 1; }
done
cp "$(command -v sleep)" /opt/lab/world
unshare --net /opt/lab/world infinity </dev/null >/dev/null 2>&1 &
world=$!
until [ "$(cat /proc/$world/comm)" = world ]; do :; done
ip link add eth0 type veth peer name eth0 netns $world
ip address add 192.0.2.2/24 dev eth0
ip link set eth0 up
nsenter --target $world --net ip address add 192.0.2.1/24 dev eth0
nsenter --target $world --net ip link set eth0 up
