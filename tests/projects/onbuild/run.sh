cat /app/app.conf; id -u
