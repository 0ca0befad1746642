#!/usr/bin/env bash
# gomod.sh VERSION: writes go.mod and go.sum for that version of Kubernetes (1.37.2). Its own go.mod points at staging
# folders inside its repository; here they become the modules that are published from those.
set -euo pipefail
cd "$(dirname "$0")"
version=$1
theirs=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
sed -E -e 's#^module .*#module portolan.dev/apiserver#' \
  -e "s#^(\s*k8s\.io/[a-z-]+) => \./staging/src/.*#\1 => \1 v0.${version#1.}#" "$theirs" > go.mod
go mod edit -require="k8s.io/kubernetes@v$version"
go mod tidy
