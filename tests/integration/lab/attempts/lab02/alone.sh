# missing: is alone in its namespaces
exec unshare --uts --pid --fork sh -c 'hostname inside; echo ready; exec sleep 1000'
