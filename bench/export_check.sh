#!/usr/bin/env bash
# Whether exports are what they say, by the libraries they are for: each run is exported in every form, the code of each
# README is run as it stands there (bench/export_check.py), and networks are trained on the export by PyTorch, beside
# `retort eval` (bench/pytorch_eval.py). Prints a line a check; ends with status 1 where one fails.
#
#   bench/export_check.sh runs/quickstart-0 [RUN...]
#
# Environment:
#   NETWORKS  networks of the comparison with `retort eval` (24; 0 goes without)
#   THREADS   of PyTorch (all processors)
#   DEVICE    OpenCL device: index or words of `retort devices`
#   RETORT    the program (build/retort)
#   PYTHON    a Python with what is to be checked; without it one is made in build/python with pip, which heeds its own
#             variables (PIP_INDEX_URL, say, for a place that has PyTorch for CPUs alone)
#
# What cannot be installed is left out, with a word.
set -euo pipefail
cd "$(dirname "$0")/.."
networks=${NETWORKS:-24} threads=${THREADS:-$(nproc)} retort=${RETORT:-build/retort}

die() { echo "export_check: $*" >&2; exit 1; }
[ $# -gt 0 ] || die "which runs? bench/export_check.sh RUN..."
[ -x "$retort" ] || die "$retort is not there; build it with ./dev build, or name it in RETORT"
if [ -z "${PYTHON:-}" ]; then
  PYTHON=build/python/bin/python
  [ -x "$PYTHON" ] || python3 -m venv build/python
  for module in numpy torch jax sklearn:scikit-learn safetensors PIL:pillow; do
    "$PYTHON" -c "import ${module%:*}" 2>/dev/null && continue
    echo "installing ${module#*:} in build/python" >&2
    "$PYTHON" -m pip install --quiet "${module#*:}" || echo "export_check: could not install ${module#*:}; going on without" >&2
  done
fi
"$PYTHON" -c 'import numpy' 2>/dev/null || die "$PYTHON has no numpy"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for run; do
  for format in npz safetensors png; do
    folder=$work/$(basename "$run")-$format
    "$retort" export "$run" --format $format --out "$folder" >/dev/null
    "$PYTHON" bench/export_check.py "$folder" --set "$run/set" --name "$run, $format" || failed=1
  done
  [ "$networks" = 0 ] || "$PYTHON" bench/pytorch_eval.py "$work/$(basename "$run")-npz" --retort "$retort" \
    --networks "$networks" --threads "$threads" ${DEVICE:+--device "$DEVICE"} --name "$run" || failed=1
done
exit $failed
