#!/usr/bin/env bash
# Builds the test API server once into a cache outside the clone, keyed by a hash of the recipe, and prints its path.
# Progress goes to standard error.
set -euo pipefail
cd "$(dirname "$0")"

command -v go >/dev/null || {
  echo "Go is missing: the test API server is built from Go modules. Install Go 1.26 or later (https://go.dev/dl)." >&2
  exit 1
}
version=$(sed -n 's|^\tk8s.io/kubernetes v||p' go.mod)
hash=$(cat ./*.go go.mod go.sum build.sh | sha256sum | cut -c1-16)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/portolan-ci/apiserver-$hash"
binary="$cache/apiserver"
if [ ! -x "$binary" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # somebody else may be at it
fi
if [ ! -x "$binary" ]; then
  echo "building the test API server, once: 4 to 8 minutes on two idle cores" >&2
  started=$SECONDS
  log="$cache/build.log"
  stamp=k8s.io/component-base/version
  go build -v -trimpath -o "$binary.new" -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 \
    -X $stamp.gitMinor=$(cut -d. -f2 <<<"$version") -X $stamp.gitTreeState=clean" . >"$log" 2>&1 &
  build=$!
  trap 'kill "$build" 2>/dev/null || true' EXIT
  packages=$(go list -deps . 2>/dev/null | wc -l)
  while kill -0 "$build" 2>/dev/null; do
    for _ in {1..20}; do kill -0 "$build" 2>/dev/null && sleep 0.5; done
    echo "  $((SECONDS - started)) s: $(grep -cv '^go: ' "$log" || true) of at most $packages packages compiled" >&2
  done
  wait "$build" || { tail -20 "$log" >&2; echo "the build failed; its log: $log" >&2; exit 1; }
  # Another program of that name may be running: it keeps its file.
  mv "$binary.new" "$binary"
fi
echo "$binary"
