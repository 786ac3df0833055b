# missing: is not the content of /rootfs
exec unshare --mount sh -c 'echo ready; exec sleep 1000'
