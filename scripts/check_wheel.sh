#!/usr/bin/env bash
# The wheel, built and tried outside of the tree: in fresh environments of the Pythons given, what is
# installed imports, has its types and its data, trains, and passes a few of the tests.
#
#     scripts/check_wheel.sh python3.11 python3.12
#
# What is not there is left out, and a version is tried once.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD

rm -rf dist build
.venv/bin/python -m build --outdir dist . >/dev/null
wheel=$(ls dist/*.whl)
tried=" "
for python in "$@"; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  [[ $tried != *" $version "* ]] || continue
  tried+="$version "
  venv="$ROOT/.cache/wheel-$version"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$wheel[test]"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheel"
  outside=$(mktemp -d)
  trap 'rm -rf "$outside"' EXIT
  cp -r tests pyproject.toml README.md Makefile "$outside"
  cd "$outside"
  export JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR="$ROOT/.cache/jax-$version"
  "$venv/bin/python" -c "
import pathlib, seqjax
folder = pathlib.Path(seqjax.__file__).parent
assert 'site-packages' in folder.parts, folder
assert (folder / 'py.typed').exists()"
  "$venv/bin/seqjax" --version
  "$venv/bin/seqjax" train parity --tiny --run "$outside/run" >/dev/null
  "$venv/bin/seqjax" eval "$outside/run" >/dev/null
  "$venv/bin/seqjax" generate python --length 20 >/dev/null
  "$venv/bin/python" -m pytest -p no:cacheprovider tests/test_own.py
  cd "$ROOT"
  rm -rf "$outside"
  echo "$(basename "$wheel") runs on Python $version"
done
[[ $tried != " " ]] || { echo "none of these Pythons is there: $*"; exit 1; }
