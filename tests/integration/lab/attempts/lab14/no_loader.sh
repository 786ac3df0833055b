# missing: server: /bin/tool failed with status 127
set -e
sed -i 's/^TMPFS=.*/TMPFS="\/run"/; s/^FILE_BLOCKS=.*/FILE_BLOCKS=2048/' /srv/container.conf
exec start-container
