# missing: is writable: a tmpfs on /run does as well
set -e
ldd /srv/rootfs/bin/tool | grep -o '/[^ )]*' | while read -r path; do
    mkdir -p "/srv/rootfs$(dirname "$path")"
    cp -L "$path" "/srv/rootfs$path"
done
sed -i 's/^TMPFS=.*/TMPFS="\/run"/; s/^FILE_BLOCKS=.*/FILE_BLOCKS=2048/' /srv/container.conf
sed -i s/READ_ONLY=yes/READ_ONLY=no/ /srv/container.conf
exec start-container
