# missing: the world sees 10.9.0.3
set -e
ip link add br0 type bridge
ip addr add 10.9.0.1/24 brd + dev br0
ip link set br0 up
for n in 2 3; do
  unshare --net sh -c "sleep infinity" &
  p=$!
  until [ "$(readlink /proc/$p/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
  ip link add v$n type veth peer name eth0 netns $p
  ip link set v$n master br0 up
  nsenter -t $p --net sh -c "ip link set lo up; ip addr add 10.9.0.$n/24 dev eth0; ip link set eth0 up; ip route add default via 10.9.0.1 dev eth0 metric 100"
done
echo 1 > /proc/sys/net/ipv4/ip_forward
nft add table inet mynat
nft add chain inet mynat post '{ type nat hook postrouting priority srcnat; }'
nft add rule inet mynat post ip saddr 10.9.0.2 oifname eth0 snat ip to 192.0.2.2
echo ready
sleep infinity
