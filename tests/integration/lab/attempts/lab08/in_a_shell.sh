# passes
G=/sys/fs/cgroup
if [ -e $G/cgroup.controllers ]; then M=$G P=$G C=$G; else M=$G/memory P=$G/pids C=$G/cpu; fi
for each in $M/small $M/killed $P/small $C/small; do [ -d $each ] || mkdir $each; done
if [ -e $G/cgroup.controllers ]; then
    echo 32M >$M/small/memory.max
    echo 16M >$M/killed/memory.max
    echo 50000 250000 >$C/small/cpu.max
else
    echo 32M >$M/small/memory.limit_in_bytes
    echo 16M >$M/killed/memory.limit_in_bytes
    echo 250000 >$C/small/cpu.cfs_period_us
    echo 50000 >$C/small/cpu.cfs_quota_us
fi
echo 10 >$P/small/pids.max
sh -c "for each in $M $P $C; do echo \$\$ >\$each/small/cgroup.procs; done; touch /tmp/entered; while :; do sleep 0.02; done" &
sh -c "echo \$\$ >$M/killed/cgroup.procs; head -c 64m /dev/zero | tail >/dev/null"
number=$(cat $M/killed/memory.events $M/killed/memory.oom_control 2>/dev/null | sed -n 's/^oom_kill //p')
cp "$(command -v sleep)" /tmp/oom-$number
/tmp/oom-$number infinity &
until [ "$(cat /proc/$!/comm)" = oom-$number ] && [ -e /tmp/entered ]; do sleep 0.02; done
echo ready
while :; do sleep 0.02; done
