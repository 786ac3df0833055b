# missing: shares the machine's UTS namespace
exec unshare --pid --fork sh -c 'echo ready; exec sleep 1000'
