# missing: doesn't run in the container
set -e
ldd /srv/rootfs/bin/tool | grep -o '/[^ )]*' | while read -r path; do
    mkdir -p "/srv/rootfs$(dirname "$path")"
    cp -L "$path" "/srv/rootfs$path"
done
sed -i 's/^TMPFS=.*/TMPFS="\/run"/; s/^FILE_BLOCKS=.*/FILE_BLOCKS=2048/' /srv/container.conf
cp /opt/lab/server /tmp/server; touch /bin/x 2>/dev/null || true
sed -i "s|/bin/tool|true|; s|/run|/tmp|" /tmp/server
exec /tmp/server
