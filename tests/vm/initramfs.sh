#!/bin/busybox sh
# First process of the virtual machine: put the root file system together and go there.
# The host's root is read-only beneath an overlay in memory.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order

options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,cache=loose,$options" root /lower || exec sleep 1
mount -t tmpfs -o size=75% tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root
mkdir -p /root/run/vm
mount -t tmpfs run /root/run
mkdir /root/run/vm
mount -t 9p -o "rw,$options" share /root/run/vm

for word in $(cat /proc/cmdline); do
    case $word in guest=*) guest=${word#guest=} ;; esac
done
umount /proc
mount --move /dev /root/dev
exec switch_root /root /bin/bash "$guest"
