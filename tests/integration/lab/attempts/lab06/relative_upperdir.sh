# passes
set -e
cd /scratch; mkdir -p a/u a/w; cd a
mount -t overlay -o lowerdir=/layers/app:/layers/base,upperdir=u,workdir=w,userxattr overlay /merged
rm /merged/etc/motd; echo v2 > /merged/bin/tool; rm -r /merged/data; mkdir /merged/data; : > /merged/data/new
rm -rf /lab/image; mkdir -p /lab/image/blobs/sha256 /tmp/l; B=/lab/image/blobs/sha256
add(){ d=$(sha256sum < "$1" | cut -d' ' -f1); cp "$1" $B/$d; echo "$d $(stat -c %s "$1")"; }
# Explicit whiteouts rather than an opaque mark
mkdir -p /tmp/l/etc /tmp/l/bin /tmp/l/data; : > /tmp/l/etc/.wh.motd; echo v2 > /tmp/l/bin/tool; : > /tmp/l/data/.wh.old1;  : > /tmp/l/data/.wh.old2; : > /tmp/l/data/new
L=; D=
for d in /layers/base /layers/app /tmp/l; do
  tar -C $d -cf /tmp/x.tar .; set -- $(add /tmp/x.tar)
  L="$L${L:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$1\",\"size\":$2}"
  D="$D${D:+,}\"sha256:$1\""
done
printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}' "$D" > /tmp/c; set -- $(add /tmp/c)
printf '{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' $1 $2 "$L" >/tmp/m; set -- $(add /tmp/m)
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}]}' $1 $2 > /lab/image/index.json
echo '{"imageLayoutVersion":"1.0.0"}' > /lab/image/oci-layout
echo ready; sleep infinity
