#!/usr/bin/env bash
# Runs the same checks on several implementations of OpenCL, or on one device of this machine, and prints a matrix: what
# passes, what fails, and what an implementation cannot do, in its own words. `./dev conformance` calls it.
#
# usage: conformance.sh [--device WORDS] [--limit SECONDS] [--jobs N] [--check NAME]... [IMPLEMENTATION...]
#
# PoCL and Intel's CPU runtime compile for the processors; Mesa's rusticl on llvmpipe shares nothing with them, and has
# neither double precision nor many registers; Oclgrind interprets every work-item and reports races, reads of what was
# never written, and accesses outside of buffers. What is installed for them here stays in build/conformance/.
set -euo pipefail
source_root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
build=$source_root/build
place=$build/conformance
shared=$source_root/../shared/oracle

implementations=() device='' limit=1800 jobs=$(nproc) checks=()
while [ $# -gt 0 ]; do
  case $1 in
  --device | --limit | --jobs | --check)
    [ $# -gt 1 ] || { echo "conformance: $1 needs a value" >&2; exit 2; }
    case $1 in --device) device=$2 ;; --limit) limit=$2 ;; --jobs) jobs=$2 ;; --check) checks+=("$2") ;; esac
    shift ;;
  pocl | intel | rusticl | oclgrind) implementations+=("$1") ;;
  *) echo "conformance: unknown word $1 (usage: --device WORDS, --limit SECONDS, --jobs N, --check NAME, or some of" \
    "pocl intel rusticl oclgrind)" >&2; exit 2 ;;
  esac
  shift
done
if [ -n "$device" ]; then implementations=(device); fi
[ ${#implementations[@]} -gt 0 ] || implementations=(oclgrind rusticl pocl intel) # the slow ones first
all_checks=(device random kernels_cpu kernels_gpu compile merged compile_random oracle_cpu oracle_gpu oracle_staged
  oracle_product gemm oracle_clblast distil_cpu distil_gpu)
[ ${#checks[@]} -gt 0 ] || checks=("${all_checks[@]}")

# --- what each implementation needs ---
# Each function makes its implementation ready, or says why it cannot and fails. It runs before every check of it, in a
# shell of its own.
ready_device() {
  export RETORT_DEVICE=$device
}
ready_pocl() {
  [ -e /etc/OpenCL/vendors/pocl.icd ] || { echo "Debian's pocl-opencl-icd is not installed"; return 1; }
  export OCL_ICD_VENDORS=/etc/OpenCL/vendors/pocl.icd
}
ready_intel() {
  local library=$place/intel/lib/libintelocl.so
  [ -e "$library" ] || { echo "PyPI's intel-opencl-rt is not there: $(tail -n 1 "$place/intel.log" 2>/dev/null)"; return 1; }
  mkdir -p "$place/vendors"
  echo "$library" >"$place/vendors/intel.icd"
  export OCL_ICD_VENDORS=$place/vendors/intel.icd
}
ready_rusticl() {
  local library=$place/mesa/usr/lib/x86_64-linux-gnu/libRusticlOpenCL.so.1
  [ -e "$library" ] || { echo "Debian's mesa-opencl-icd is not there: $(tail -n 1 "$place/mesa.log" 2>/dev/null)"; return 1; }
  mkdir -p "$place/vendors"
  echo "$library" >"$place/vendors/rusticl.icd"
  export OCL_ICD_VENDORS=$place/vendors/rusticl.icd RUSTICL_ENABLE=llvmpipe
  exec 9<"$place/mesa/usr/lib/clc" # see fetch_mesa
}
ready_oclgrind() {
  command -v oclgrind >/dev/null || { echo "Debian's oclgrind is not installed"; return 1; }
  export RETORT_DEVICE=oclgrind OCL_ICD_VENDORS=/nowhere
}

fetch_intel() {
  [ ! -e "$place/intel/lib/libintelocl.so" ] || return 0
  echo "fetching Intel's CPU runtime from PyPI" >&2
  { python3 -m venv "$place/intel" && "$place/intel/bin/pip" install intel-opencl-rt intel-cmplr-lib-rt tbb; } \
    >"$place/intel.log" 2>&1 || true
}
# Mesa's package wants a libclc that cannot be installed beside newer ones, such as those that AMD's and NVIDIA's
# compilers take. So both are unpacked, and rusticl is told to look for libclc's files behind descriptor 9.
fetch_mesa() {
  [ ! -e "$place/mesa/usr/lib/clc" ] || return 0
  echo "fetching Mesa's rusticl from Debian" >&2
  mkdir -p "$place/debs"
  {
    (cd "$place/debs" && apt-get download mesa-opencl-icd libclc-15) &&
      for package in "$place"/debs/*.deb; do dpkg-deb -x "$package" "$place/mesa"; done &&
      LC_ALL=C sed -i 's,/usr/lib/clc/,/dev/fd/9////,g' "$place"/mesa/usr/lib/x86_64-linux-gnu/libRusticlOpenCL.so.1.0.0
  } >"$place/mesa.log" 2>&1 || rm -rf "$place/mesa"
}

# --- the checks ---
# Under Oclgrind what it finds goes to a log, which must stay empty, whatever its exit status is. It adds up the local
# memory of all kernels of a program, and does not know what clang makes of `restrict`. Its watch for values that were
# never written (21.10) wants unoptimised kernels, takes what the host writes at an offset into a buffer for unwritten,
# and is slow, so it is for the check that writes whole buffers; the tests of kernels surround and fill their tensors with
# NaN instead.
watched() {
  if [ "$implementation" != oclgrind ]; then
    "$@"
    return
  fi
  local ended=0 kernels=-Drestrict= watch=()
  if [ "$check" = random ]; then kernels+=' -cl-opt-disable' watch=(--uninitialized); fi
  oclgrind --data-races "${watch[@]}" --max-errors 100 --local-mem-size 16777216 --build-options "$kernels" \
    --log found "$@" || ended=$?
  if [ -s found ]; then
    cat found
    ended=1
  fi
  return $ended
}

# The cases of ../shared/oracle, or the project's own where that is not there.
oracle_cases() {
  local folder cases=$shared own=$source_root/tests/oracle
  # The slow take the smallest, with one convolution and with two. CLBlast's kernels are compiled for minutes. None has
  # eigenvalues: llvmpipe ends loops after 65,535 turns, as its self-test says, and computes others.
  case $implementation:$check in
  rusticl:oracle_clblast)
    ls -d "$own"/instance-window-one
    return ;;
  oclgrind:* | rusticl:*)
    ls -d "$own"/instance-{window-one,leaky-max}
    return ;;
  esac
  [ -d "$cases" ] || cases=$own
  for folder in "$cases"/*/; do
    if [ -e "$folder/case.yaml" ] && [[ $(basename "$folder") != @(dm|match|trajectory)-* ]]; then echo "$folder"; fi
  done
}

# Images that are a pattern of their class under noise, as MNIST's files: enough to learn from in seconds.
make_images() {
  python3 - <<'WORDS'
import random, struct
numbers = random.Random(1)
side, classes = 8, 3
patterns = [[numbers.randrange(256) for _ in range(side * side)] for _ in range(classes)]
for part, count in (("train", 90), ("t10k", 30)):
    labels = [i % classes for i in range(count)]
    pixels = [min(255, max(0, p + numbers.randrange(-60, 61))) for label in labels for p in patterns[label]]
    with open(part + "-images-idx3-ubyte", "wb") as file:
        file.write(struct.pack(">IIII", 0x803, count, side, side) + bytes(pixels))
    with open(part + "-labels-idx1-ubyte", "wb") as file:
        file.write(struct.pack(">II", 0x801, count) + bytes(labels))
WORDS
}

# A smooth problem, so that rounding stays small: Adam's first steps are nearly signs, where a gradient that is zero but
# for rounding counts as much as any other.
distil() { # family
  make_images
  cat >tiny.yaml <<'WORDS'
data: {kind: idx, path: .}
network: {depth: 1, width: 5, activation: swish}
inner: {steps: 3, lr: 0.01, eps: 1e-3}
method: {window: 2, range: 0}
outer: {steps: 3, optimizer: sgd, lr: 1, real_batch: 15}
evaluate: {networks: 1, steps: [3]}
WORDS
  rm -rf run
  watched "$build/retort" run tiny.yaml --out run --set device.family="$1" --quiet || return
  # What the run says of itself, for comparison with other implementations.
  python3 -c 'import json; print("losses", *[json.loads(line)["loss"] for line in open("run/metrics.jsonl")])'
}

# Oracle cases with products by CLBlast, and nobody else; with the kernels for the device, for it is the same in both.
check_called() {
  local ended=0
  RETORT_GEMM=clblast "$build/retort" check "$@" >said 2>&1 || ended=$?
  cat said
  ! grep -q 'by own kernels instead' said && return $ended
}

run_check() {
  case $check in
  kernels_cpu) watched "$build/tests/test_kernels" ;;
  merged) RETORT_TEST_MERGED=1 watched "$build/tests/test_compile" ;; # for GPUs that are only described
  oracle_clblast)
    local cases
    mapfile -t cases < <(oracle_cases)
    check_called "${cases[@]}" ;;
  oracle_*)
    local cases family=${check#oracle_}
    mapfile -t cases < <(oracle_cases)
    case $family in staged | product) export RETORT_CONV=$family; family=gpu ;; esac
    watched "$build/retort" check --family "$family" "${cases[@]}" ;;
  distil_*) distil "${check#distil_}" ;;
  *) watched "$build/tests/test_$check" ;;
  esac
}

# What an implementation is known to be unable to do, and why.
inability() {
  case $check in gemm | oracle_clblast)
    if [[ $(ldd "$build/retort") != *clblast* ]]; then echo "this build has no CLBlast"; return; fi ;;
  esac
  case $implementation:$check in
  oclgrind:gemm | oclgrind:oracle_clblast) echo "it interprets every work-item, and CLBlast is tested on large products" ;;
  rusticl:kernels_cpu)
    echo "llvmpipe compiles kernels with many live vectors for minutes, and one with 400 KB of private memory computes NaN" ;;
  pocl:merged) echo "PoCL 3.1 breaks kernels with barriers that whole groups reach under a condition" ;;
  esac
}

# Checks that an implementation is known not to end in bearable time: seconds that it gets nevertheless, and why. Past
# them it counts as neither passed nor failed, and the note says how many tests had passed; a wrong result within them is
# a failure like any other.
excuse() {
  case $implementation:$check in
  rusticl:compile | rusticl:merged)
    echo "300 Mesa takes ten seconds to translate and compile the kernels of one of its cases" ;;
  esac
}

# --- running them ---
# One cell: leaves "pass", "FAIL", "cannot" or "absent" with seconds and words in RESULT, and what was said in LOG.
run_cell() {
  local folder=$place/cells/$implementation.$check
  local result=$folder/result log=$folder/log ended=0 begun=$SECONDS words most=$limit late=FAIL
  rm -rf "$folder"
  mkdir -p "$folder"
  echo "FAIL 0 not ended" >"$result"
  if ! words=$("ready_$implementation" 9>&-); then
    echo "absent 0 $words" >"$result"
    return
  fi
  words=$(inability)
  if [ -n "$words" ]; then
    echo "cannot 0 $words" >"$result"
    return
  fi
  words=$(excuse)
  if [ -n "$words" ]; then
    late=cannot
    [ "${words%% *}" -ge "$most" ] || most=${words%% *}
  fi
  (
    cd "$folder"
    "ready_$implementation"
    export implementation check build place source_root shared
    export -f watched oracle_cases make_images distil check_called run_check
    export CMOCKA_MESSAGE_OUTPUT=TAP RETORT_CACHE=off RETORT_WISDOM=off RETORT_SOURCE=$source_root
    export RETORT_PROGRAM=$build/retort XDG_CACHE_HOME=$folder
    case $implementation in oclgrind | rusticl) export RETORT_TEST_SMALL=1 ;; esac
    exec timeout --kill-after=10 "$most" bash -c 'set -euo pipefail; run_check'
  ) >"$log" 2>&1 || ended=$?
  # A test that found no device skips everything, with a word.
  if [ $ended = 0 ] && grep -q '^1\.\.0' "$log"; then ended=77; fi
  case $ended in
  0) echo "pass $((SECONDS - begun))" >"$result" ;;
  77) echo "FAIL $((SECONDS - begun)) $(grep -m 1 '^1\.\.0' "$log")" >"$result" ;;
  124 | 137)
    if grep '^not ok' "$log" | grep -qv '# SKIP' || [ -s "$folder/found" ]; then late=FAIL; fi # skipped is "not ok" too
    words=${words:+: ${words#* }; $(grep -c '^ok' "$log" || true) tests had passed}
    echo "$late $((SECONDS - begun)) not done within $most s$words" >"$result" ;;
  *) echo "FAIL $((SECONDS - begun)) exit status $ended" >"$result" ;;
  esac
  echo "$implementation, $check: $(<"$result")" >&2
}

[ -x "$build/retort" ] || { echo "conformance: build first (./dev build)" >&2; exit 1; }
for implementation in "${implementations[@]}"; do # in case one is ended from outside
  for check in "${checks[@]}"; do
    mkdir -p "$place/cells/$implementation.$check"
    echo "FAIL 0 not ended" >"$place/cells/$implementation.$check/result"
    : >"$place/cells/$implementation.$check/log"
  done
done
if [ -z "$device" ] && [ -z "${RETORT_NO_INSTALL:-}" ]; then
  for implementation in "${implementations[@]}"; do
    case $implementation in intel) fetch_intel ;; rusticl) fetch_mesa ;; esac
  done
fi
for implementation in "${implementations[@]}"; do
  for check in "${checks[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    run_cell &
  done
done
wait

# --- the matrix ---
# Losses of the tiny distillation agree to what rounding explains.
compare_losses() {
  python3 - "$place/cells" "${implementations[@]}" <<'WORDS'
import sys
folder, first = sys.argv[1], None
for name in sys.argv[2:]:
    for family in "cpu", "gpu":
        try:
            cell = f"{folder}/{name}.distil_{family}/"
            line = [line for line in open(cell + "log") if line.startswith("losses")][0]
            passed = open(cell + "result").read().startswith("pass")
        except (OSError, IndexError):
            continue
        losses = [float(word) for word in line.split()[1:]]
        if passed and first is None: first, where = losses, cell
        if passed and (len(losses) != len(first) or any(abs(a - b) > 1e-4 * abs(b) for a, b in zip(losses, first))):
            open(cell + "result", "w").write(f"FAIL 0 losses {losses} differ from {first}\n")
WORDS
}
compare_losses

passed=0 failed=0 notes=() noted=
printf '\n%-16s' ''
printf '%-14s' "${implementations[@]}"
echo
for check in "${checks[@]}"; do
  printf '%-16s' "$check"
  for implementation in "${implementations[@]}"; do
    read -r verdict seconds words <"$place/cells/$implementation.$check/result"
    case $verdict in
    pass) passed=$((passed + 1)) cell="pass ${seconds}s" ;;
    absent) cell="absent" ;;
    *) cell="$verdict ${seconds}s" ;;
    esac
    [ "$verdict" != FAIL ] || failed=$((failed + 1))
    if [ "$verdict" = absent ]; then
      [[ $noted == *" $implementation "* ]] || notes+=("$implementation: absent: $words")
      noted+=" $implementation "
    elif [ -n "$words" ]; then
      notes+=("$implementation, $check: $verdict: $words")
      cell+=" [${#notes[@]}]"
    fi
    printf '%-14s' "$cell"
  done
  echo
done
echo
for ((i = 0; i < ${#notes[@]}; i++)); do echo "[$((i + 1))] ${notes[i]}"; done
for check in "${checks[@]}"; do
  for implementation in "${implementations[@]}"; do
    folder=$place/cells/$implementation.$check
    [[ $(<"$folder/result") == FAIL* ]] || continue
    printf '\n--- %s, %s; the whole of it is in %s\n' "$implementation" "$check" "$folder/log"
    tail -n 30 "$folder/log"
  done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
