#!/bin/sh
# The whole story on one machine: publish a directory, mirror it, kill the origin, fetch it from the mirror.
# Needs cargo and a C compiler; uses loopback and one temporary directory, which it removes.
set -eu
cd "$(dirname "$0")/.."
cargo build --release
murmir=$PWD/target/release/murmir
work=$(mktemp -d)
pids=
# shellcheck disable=SC2086
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }

# node NAME ARGS...: a node in the background; its address goes to $work/NAME.address.
node() {
    name=$1; shift
    : >"$work/$name.out"
    "$murmir" --state-dir "$work/$name" --listen /ip4/127.0.0.1/tcp/0 "$@" serve >"$work/$name.out" &
    pids="$pids $!"; echo $! >"$work/$name.pid"
    while ! grep -q '^listening ' "$work/$name.out"; do sleep 0.1; done
    sed -n 's/^listening //p' "$work/$name.out" | head -n 1 >"$work/$name.address"
}

say "a node that holds nothing: the way into the swarm"
node plain
plain=$(cat "$work/plain.address"); echo "$plain"

say "the origin publishes this project's own sources"
node origin --peer "$plain"
mkdir "$work/tree"; cp -r node tracker-less docs "$work/tree"
reference=$("$murmir" --state-dir "$work/origin" publish "$work/tree" --module sources)
echo "$reference"

say "a mirror, on a machine of its own"
node mirror --peer "$plain"
"$murmir" --state-dir "$work/mirror" mirror "$reference" "$work/replica"
"$murmir" --state-dir "$work/mirror" status

say "the origin is killed"
kill -9 "$(cat "$work/origin.pid")"

say "a newcomer knows the reference and the plain node, finds the mirror through the DHT, and fetches"
"$murmir" --state-dir "$work/newcomer" --listen /ip4/127.0.0.1/tcp/0 --peer "$plain" --json \
    fetch "$reference" "$work/copy"
diff -r --no-dereference "$work/tree" "$work/copy"
echo "the copy agrees with what was published"
