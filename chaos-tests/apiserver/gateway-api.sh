#!/usr/bin/env bash
# Fetches the Gateway API's definitions once, as a Go module into Go's own module cache, which checks them by their sum, and
# prints the folder that holds those of the standard channel.
set -euo pipefail

version=1.4.0
command -v go >/dev/null || { echo "Go is missing: the Gateway API's definitions come as a Go module." >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
folder=$(go mod download -json "sigs.k8s.io/gateway-api@v$version" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
[ -d "$folder/config/crd/standard" ] || { echo "version $version has no definitions" >&2; exit 1; }
echo "$folder/config/crd/standard"
