mkdir -p /rootfs /run/image /srv/shared
mount --bind / /run/image
for each in bin etc usr lib lib64 sbin; do
    if [ -e /run/image/$each ]; then cp -a /run/image/$each /rootfs/; fi
done
umount /run/image
mkdir -p /rootfs/proc /rootfs/dev /rootfs/tmp /rootfs/shared /rootfs/sys
echo "of the host" >/srv/shared/file
printf '#!/bin/sh\nexec python3 -m minibox.oci_cli "$@"\n' >/opt/lab/minibox-oci
chmod 755 /opt/lab/minibox-oci
# crun looks at this even where it is to use no cgroups. An ordinary user's machine on cgroup v1 has nothing there.
grep -q ' /sys/fs/cgroup ' /proc/self/mountinfo || mount -t tmpfs cgroup /sys/fs/cgroup
