#!/bin/bash
# First process in the virtual machine's root file system with --systemd: writes a few units, then becomes
# systemd. The units come back here: to set up, to run the command in a login session, and to end it all.
source "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
SELF=$(realpath "${BASH_SOURCE[0]}")
UNITS=/run/systemd/system

unit() { cat >"$UNITS/$1"; }

write_units() {
    mkdir -p $UNITS
    # What would tidy up the host's directories, or keep what happens here.
    for name in tmpfiles-setup tmpfiles-setup-dev sysusers firstboot timesyncd pstore binfmt journal-flush; do
        ln -s /dev/null $UNITS/systemd-$name.service
    done
    unit vm.target <<END
[Unit]
Wants=vm.service
END
    unit vm-set-up.service <<END
[Unit]
After=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/bash $SELF set_up
END
    # A login as on a terminal: logind makes the session, and starts the user's own systemd.
    local USER=root
    [ -z "$AS_USER" ] || USER=student
    unit vm.service <<END
[Unit]
Requires=vm-set-up.service dbus.service systemd-logind.service
After=vm-set-up.service dbus.service systemd-logind.service systemd-user-sessions.service
Wants=systemd-user-sessions.service
[Service]
User=$USER
PAMName=login
TTYPath=/dev/hvc0
StandardInput=tty-force
StandardOutput=tty
ExecStart=/bin/bash $SELF run
ExecStopPost=+/bin/bash $SELF end
TimeoutStopSec=5
END
}

case ${1:-} in
set_up) set_up ;;
run)
    enter_directory
    exec "${shell[@]}"
    ;;
end)
    [ "$EXIT_CODE" = exited ] || EXIT_STATUS=$((128 + $(kill -l "$EXIT_STATUS")))
    finish "$EXIT_STATUS"
    ;;
*)
    write_units
    exec /lib/systemd/systemd --system --unit=vm.target
    ;;
esac
