#!/usr/bin/env bash
# minibox-init: exit statuses, signals, orphans. Usage: test_init.sh MINIBOX-INIT
set -euo pipefail
init=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
passed=0

fail() { echo "test_init.sh: $*" >&2; exit 1; }

expect() { # STATUS COMMAND...
    local wanted=$1 status=0
    shift
    timeout 20 "$@" >"$directory/out" 2>"$directory/err" || status=$?
    [ "$status" = "$wanted" ] || fail "'$*' ended with $status, not $wanted: $(cat "$directory/err")"
    passed=$((passed + 1))
}

expect 0 "$init" -- true
expect 7 "$init" -- sh -c 'exit 7'
expect 7 "$init" sh -c 'exit 7'
expect 255 "$init" -- sh -c 'exit 255'
expect 143 "$init" -- sh -c 'kill -TERM $$'
expect 137 "$init" -- sh -c 'kill -KILL $$'

expect 127 "$init" -- /no/such
grep -q '^minibox: exec /no/such: No such file or directory$' "$directory/err" || fail "127 without a reason"
printf 'x' >"$directory/plain"
expect 126 "$init" -- "$directory/plain"
expect 126 "$init" -- "$directory"
expect 125 "$init"
grep -q '^usage: ' "$directory/err" || fail "125 without a reason"

# Streams and arguments pass through.
[ "$(printf 'in' | "$init" -- sh -c 'cat; printf " %s" "$@"' sh a 'b c')" = 'in a b c' ] || fail "streams or arguments"
passed=$((passed + 1))

# Every signal reaches the command, and its answer is init's.
number=0
for name in HUP INT QUIT USR1 USR2 TERM WINCH CONT ALRM; do
    number=$((number + 1))
    : >"$directory/ready"
    # A shell's background commands ignore SIGINT and SIGQUIT, and what is ignored can't be trapped.
    env --default-signal "$init" -- bash -c "trap 'exit $number' $name; echo >$directory/ready; while :; do sleep 0.02; done" &
    pid=$!
    until [ -s "$directory/ready" ]; do sleep 0.01; done
    kill -s "$name" "$pid"
    status=0
    wait "$pid" || status=$?
    [ "$status" = "$number" ] || fail "SIG$name: ended with $status, not $number"
    passed=$((passed + 1))
done

# A command that stays deaf ends as the signal says.
"$init" -- sleep 20 &
pid=$!
sleep 0.1
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
[ "$status" = 143 ] || fail "sleep ended with $status, not 143"

# As process 1 it reaps what is orphaned, and what it leaves behind ends with it.
if unshare --user --map-root-user --pid --fork --mount-proc true 2>/dev/null; then
    expect 5 unshare --user --map-root-user --pid --fork --mount-proc "$init" -- sh -c '
        for i in 1 2 3; do (sleep 0.05 & exit 0) & done
        wait
        sleep 0.5
        ! grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null || exit 1
        (sleep 30 &)
        exit 5'
else
    echo "test_init.sh: no user namespaces here, so process 1 was not tested"
fi
echo "test_init.sh: $passed passed"
