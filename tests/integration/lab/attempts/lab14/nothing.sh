# missing: server: /bin/tool failed with status 127
set -e
exec start-container
