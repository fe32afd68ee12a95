#!/usr/bin/env bash
# Runs the device and kernel tests where other compilers and checkers see them: under Oclgrind, which watches every
# access of every work-item, and on Mesa's rusticl with llvmpipe, a second implementation of OpenCL. Prints TAP, a case
# for each pair; a checker that is not installed is skipped (Debian: oclgrind, mesa-opencl-icd).
#
# usage: other_devices.sh [FOLDER OF THE TEST PROGRAMS]
set -euo pipefail
folder=${1:-$(dirname "$0")/../build/tests}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CMOCKA_MESSAGE_OUTPUT=TAP RETORT_CACHE=off
number=0 failed=0

report() { # words, 0 where all is well, file with what was said
  number=$((number + 1))
  if [ "$2" = 0 ]; then
    echo "ok $number - $1"
  else
    echo "not ok $number - $1"
    tail -n 60 "$3" | sed 's/^/# /'
    failed=1
  fi
}

skip() {
  number=$((number + 1))
  echo "ok $number - $1 # SKIP not installed"
}

# Oclgrind's exit status is the program's, whatever it found: its log must stay empty. It adds up the local memory of all
# kernels of a program. Its check for uninitialised values stops at instructions that it does not know; the tests surround
# and fill their tensors with NaN instead.
under_oclgrind() { # test, options of Oclgrind
  local status=0
  : >"$work/found"
  RETORT_DEVICE=oclgrind oclgrind --data-races --max-errors 100 --local-mem-size 16777216 \
    --log "$work/found" "${@:2}" "$folder/test_$1" >"$work/said" 2>&1 || status=1
  [ ! -s "$work/found" ] || status=1
  cat "$work/found" >>"$work/said"
  report "$1 under Oclgrind" "$status" "$work/said"
}

on_rusticl() { # test
  local status=0
  RETORT_DEVICE='rusticl llvmpipe' RUSTICL_ENABLE=llvmpipe "$folder/test_$1" >"$work/said" 2>&1 || status=1
  report "$1 on rusticl" "$status" "$work/said"
}

if command -v oclgrind >/dev/null; then
  under_oclgrind device
  under_oclgrind kernels --build-options -cl-opt-disable # optimised, they hold an instruction it does not know
  under_oclgrind kernels_gpu
else
  for name in device kernels kernels_gpu; do skip "$name under Oclgrind"; done
fi
# Not the CPU family: llvmpipe compiles kernels with many live vectors for minutes.
for name in device kernels_gpu; do
  if [ -e "${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}/rusticl.icd" ]; then
    on_rusticl "$name"
  else
    skip "$name on rusticl"
  fi
done
echo "1..$number"
exit $failed
