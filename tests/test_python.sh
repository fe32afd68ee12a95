#!/usr/bin/env bash
# python/ in a Python environment of its own, which stays in the build folder: pip install, then pytest. Prints TAP.
# Skips where there is no Python with venv, or where pip cannot fetch what it needs.
set -uo pipefail
source=${RETORT_SOURCE:?the source tree}
build=${RETORT_BUILD:?the build folder}
environment=$build/python_env
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset RETORT_DEVICE PYTHONPATH
skip() { echo "1..1"; echo "ok 1 # SKIP $1"; exit 0; }

[ "${RETORT_SANITIZE:-none}" = none ] || skip "Python does not load a library with sanitizers"
command -v python3 >/dev/null || skip "there is no python3"
[ -x "$environment/bin/pip" ] || python3 -m venv "$environment" >"$work/log" 2>&1 ||
  { rm -rf "$environment"; skip "python3 makes no environment: $(tail -n 1 "$work/log")"; }
pip() { "$environment/bin/pip" --quiet --disable-pip-version-check "$@" >"$work/log" 2>&1; }
pip install "cffi>=1.15" "numpy>=1.22" pytest "flit_core>=3.4" ||
  skip "pip cannot fetch cffi, numpy, pytest and flit_core: $(tail -n 1 "$work/log")"

cp -r "$source/python" "$work/python" # whatever a build leaves beside it
if ! pip install --force-reinstall --no-deps --no-build-isolation "$work/python"; then
  echo "1..1"
  echo "not ok 1 - pip install ./python"
  sed 's/^/# /' "$work/log"
  exit 1
fi
export RETORT_LIBRARY=$build/libretort.so.0 RETORT_SOURCE=$source
cd "$work" # away from the source, so that what was installed is what is imported
"$environment/bin/python" -m pytest -q -p no:cacheprovider -rA --durations=5 python/tests >"$work/log" 2>&1
ended=$?
# A case a line of pytest's summary.
awk '/^(PASSED|FAILED|ERROR|SKIPPED) / {
       n++
       name = $2; sub(/^.*::/, "", name)
       if ($1 == "PASSED") print "ok " n " - " name
       else if ($1 == "SKIPPED") print "ok " n " # SKIP " $0
       else print "not ok " n " - " name
     }
     END { print "1.." n + 0 }' "$work/log"
[ "$ended" = 0 ] || sed 's/^/# /' "$work/log"
exit "$ended"
