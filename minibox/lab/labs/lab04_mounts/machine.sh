mkdir -p /shared /private /data
mount -t tmpfs shared /shared
mount --make-shared /shared
mkdir /shared/late /shared/own
echo "part of the machine" > /srv/file
