# missing: was born in the PID namespace
exec unshare --uts --pid --fork sh -c 'hostname inside; sleep 1000 & echo ready; exec sleep 1000'
