mkdir -p /srv/rootfs /run/image
mount --bind / /run/image
for each in bin etc usr lib lib64 sbin; do
    if [ -e /run/image/$each ]; then cp -a /run/image/$each /srv/rootfs/; fi
done
umount /run/image
mkdir -p /srv/rootfs/proc /srv/rootfs/run /srv/rootfs/tmp /srv/rootfs/dev
cp /opt/lab/server /srv/rootfs/bin/server
cp "$(command -v sleep)" /srv/rootfs/bin/tool
touch /srv/rootfs/dev/null /srv/rootfs/dev/zero
mount --bind /dev/null /srv/rootfs/dev/null
mount --bind /dev/zero /srv/rootfs/dev/zero
cat >/srv/container.conf <<'CONF'
READ_ONLY=yes     # the root file system
TMPFS=""          # directories of the container that are a tmpfs, which can be written
FILE_BLOCKS=16    # how large a file may become, in blocks of 512 bytes
CONF
