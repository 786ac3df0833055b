# missing: is 'lab2', not 'inside'
exec unshare --uts --pid --fork sh -c 'echo ready; exec sleep 1000'
