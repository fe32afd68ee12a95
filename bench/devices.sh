#!/usr/bin/env bash
# Measures PoCL, Intel's CPU runtime and Mesa's rusticl side by side, those of them that are there, and makes the picture
# of docs/comparing.md from all results. Run it on an idle machine: it takes about a quarter of an hour, most of which
# passes until rusticl has not done the wide loads.
#
#   bench/devices.sh NAME        bench/results/NAME.json, docs/images/devices.png
#
# What `./dev conformance` has fetched to build/conformance/ is used (CONFORMANCE names another place).
#
# Environment:
#   RETORT    the program (build/retort)
#   LIMIT     seconds for one load on one device (60)
#   CHROMIUM  a Chromium or Chrome that renders the page (chromium)
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
name=${1:?a name for the results}
retort=$(readlink -f "${RETORT:-build/retort}") place=$(readlink -f "${CONFORMANCE:-build/conformance}")
mkdir -p bench/results
vendors=$(mktemp -d)
trap 'rm -rf "$vendors"' EXIT

cp /etc/OpenCL/vendors/pocl.icd "$vendors"
intel=$place/intel/lib/libintelocl.so mesa=$place/mesa/usr/lib
if [ -e "$intel" ]; then echo "$intel" >"$vendors/intel.icd"; fi
if [ -e "$mesa/clc" ]; then
  echo "$mesa/x86_64-linux-gnu/libRusticlOpenCL.so.1" >"$vendors/rusticl.icd"
  exec 9<"$mesa/clc" # where tests/conformance.sh has told rusticl to look
fi
export OCL_ICD_VENDORS=$vendors RUSTICL_ENABLE=llvmpipe RETORT_WISDOM=off
"$retort" bench --all-devices --limit "${LIMIT:-60}" --out "bench/results/$name.json"
"$retort" bench compare bench/results/*.json --out "$vendors/devices.html"
"${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,1400 \
  --screenshot="$PWD/docs/images/devices.png" "file://$vendors/devices.html" 2>/dev/null
ls -l docs/images/devices.png
