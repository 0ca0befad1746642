#!/usr/bin/env bash
# Makes a Python environment with grpcio once in a cache outside the clone, and prints its interpreter.
set -euo pipefail

version=1.85.1
command -v python3 >/dev/null || { echo "Python 3 is missing: the stock gRPC client is grpcio." >&2; exit 1; }
cache="${XDG_CACHE_HOME:-$HOME/.cache}/portolan-ci/kube-grpcio-$version"
mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
if [ ! -e "$cache/complete" ]; then
  echo "fetching grpcio, once" >&2
  rm -rf "$cache"
  python3 -m venv "$cache"
  "$cache/bin/pip" install --quiet --disable-pip-version-check "grpcio==$version" >&2
  touch "$cache/complete"
fi
echo "$cache/bin/python3"
