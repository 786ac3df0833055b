#!/bin/bash
# First process in the virtual machine's root file system: what systemd does on a real one, as far as
# minibox can tell, then the command.
source /run/vm/command

finish() {
    echo "$1" >/run/vm/status
    sync
    # Written out before the machine stops: qemu takes what is in the console's queue.
    sleep 0.1
    echo o >/proc/sysrq-trigger
    sleep 60
}

mount_modules() {
    mkdir -p /lib/modules
    mount --bind "$MODULES" /lib/modules
    # Without udev there are no device nodes whose opening loads a module.
    modprobe --all tun loop
    chmod 666 /dev/net/tun
    modprobe virtio_console
}

mount_all() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    mkdir -p /dev/pts /dev/shm /dev/mqueue
    ln -s /proc/self/fd /dev/fd
    local stream
    for stream in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${stream#*:}" "/dev/${stream%:*}"; done
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t mqueue mqueue /dev/mqueue
    mount --make-rshared /
}

# Where containers live: not on the root, since an upperdir can't lie on an overlay.
mount_store() {
    mkdir -p /store
    if [ "$STORE" = ext4 ]; then
        modprobe virtio_blk
        modprobe ext4
        mount -t ext4 /dev/vda /store
    else
        mount -t tmpfs tmpfs /store
    fi
    for place in /var/lib/minibox /home /var/tmp; do
        mkdir -p "/store$place" "$place"
        mount --bind "/store$place" "$place"
    done
    chmod 1777 /var/tmp
}

# An id that no user of the host has.
STUDENT=4242

add_user() {
    echo "student:x:$STUDENT:$STUDENT::/home/student:/bin/bash" >>/etc/passwd
    echo "student:*:20000::::::" >>/etc/shadow # or PAM knows no such account
    echo "student:x:$STUDENT:" >>/etc/group
    echo "student:700000000:65536" | tee -a /etc/subuid >>/etc/subgid
    mkdir -p /home/student
    chown $STUDENT:$STUDENT /home/student
}

# As systemd leaves it: a session two levels below the root, which gives memory and pids to its children.
enter_session() {
    local session=/sys/fs/cgroup/user.slice/user-${1}.slice/session-1.scope
    mkdir -p "$session"
    echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
    if [ -n "$DELEGATE" ]; then
        echo "+cpu +cpuset +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
        echo "+cpu +cpuset +memory +pids" >/sys/fs/cgroup/user.slice/cgroup.subtree_control
        local delegated=/sys/fs/cgroup/user.slice/user-${1}.slice
        echo "+cpu +cpuset +memory +pids" >"$delegated/cgroup.subtree_control"
        chown "$1" "$delegated" "$delegated"/cgroup.{procs,subtree_control,threads} "$session" "$session"/cgroup.procs
    fi
    echo $$ >"$session/cgroup.procs"
}

bring_up_network() {
    modprobe virtio_net
    ip link set lo up
    local link
    link=$(basename /sys/class/net/e*)
    ip link set "$link" up
    ip address add 10.0.2.15/24 dev "$link"
    ip route add default via 10.0.2.2
}

enter_directory() {
    cd "$DIRECTORY" || finish 125
    export TMPDIR=/var/tmp # /tmp lies on the overlay
    shell=(bash -c "$COMMAND")
    [ -n "$COMMAND" ] || shell=(bash --noprofile --norc)
}

run_command() {
    enter_directory
    if [ -n "$AS_USER" ]; then
        enter_session $STUDENT
        mkdir -p -m 700 /run/user/$STUDENT
        chown $STUDENT:$STUDENT /run/user/$STUDENT
        export HOME=/home/student USER=student LOGNAME=student XDG_RUNTIME_DIR=/run/user/$STUDENT
        setpriv --reuid $STUDENT --regid $STUDENT --init-groups "${shell[@]}"
    else
        enter_session 0
        export HOME=/root USER=root LOGNAME=root
        "${shell[@]}"
    fi
}

# What there is, and what systemd would have done besides.
set_up() {
    mount_modules
    mount_store
    add_user
    bring_up_network
    hostname vm
    mkdir -p /run/vm/results
    ln -s /run/vm/results /results
    for _ in {1..50}; do [ -e /dev/hvc0 ] && break; sleep 0.1; done
    [ -z "$COMMAND" ] || stty -F /dev/hvc0 raw -echo
    touch /run/vm/started
}

[ "$0" = "${BASH_SOURCE[0]}" ] || return 0 # guest-systemd.sh takes what is above
mount_all
set_up
# A child, so that the first process stays and reaps orphans; a session of its own on the terminal.
export STUDENT
export -f run_command enter_directory enter_session finish
setsid --ctty --wait bash -c run_command <>/dev/hvc0 >&0 2>&1
finish $?
