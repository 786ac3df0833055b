# A small root file system: the image that this machine was made of, without the host's programs mounted over it.
mkdir -p /rootfs /run/image
mount --bind / /run/image
cp -a /run/image/. /rootfs/ 2>/dev/null || (cd /run/image && tar cf - bin etc usr lib sbin 2>/dev/null | tar xf - -C /rootfs)
umount /run/image
rmdir /run/image
rm -rf /rootfs/rootfs /rootfs/run/image /rootfs/lab /rootfs/opt
mkdir -p /rootfs/proc /rootfs/dev /rootfs/tmp
