# Two layers. /scratch is a directory on the host's disk: an upperdir can't lie on an overlay, such as this machine's root.
mkdir -p /layers/base/etc /layers/base/data /layers/base/bin /layers/app/etc /layers/app/app /merged
echo "welcome" > /layers/base/etc/motd
echo "base" > /layers/base/etc/name
echo "1" > /layers/base/data/old1
echo "2" > /layers/base/data/old2
echo "v1" > /layers/base/bin/tool
echo "app" > /layers/app/etc/name
echo "main" > /layers/app/app/main
