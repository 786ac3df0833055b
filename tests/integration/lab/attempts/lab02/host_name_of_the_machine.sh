# missing: the machine's own host name has changed from lab2 to inside
hostname inside
exec unshare --uts --pid --fork sh -c 'echo ready; exec sleep 1000'
