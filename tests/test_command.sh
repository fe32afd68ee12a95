#!/usr/bin/env bash
# The command line as a person uses it: words and exit statuses of every mistake, whole runs on real images, runs that
# are killed and resumed. Prints TAP.
set -uo pipefail
program=${RETORT_PROGRAM:?the program to test}
source=${RETORT_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
fashion=/usr/share/datasets/fashion-mnist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset RETORT_DEVICE
export RETORT_WISDOM=off # neither the user's wisdom nor what it would change

. "$source/tests/tap.sh"

same() { # name, file, file
  if [ -f "$2" ] && cmp -s "$2" "$3"; then report "$1" ""; else report "$1" "$2 and $3 differ, or are not there"; fi
}
has() { # name, pattern, file
  if grep -Eq -- "$2" "$3"; then report "$1" ""; else report "$1" "no '$2' in $3: $(head -c 1000 "$3")"; fi
}
lacks() { # name, pattern, file
  if grep -Eq -- "$2" "$3"; then report "$1" "'$2' in $3: $(head -c 1000 "$3")"; else report "$1" ""; fi
}

# --- words and statuses ---
expect "help" 0 '^usage: retort VERB' --help
expect "version" 0 '^retort [0-9]+\.[0-9]+\.[0-9]+$' --version
expect "no verb" 2 '^usage: retort VERB'
expect "unknown verb" 2 'unknown verb rnu \(did you mean run\?\)' rnu
expect "unknown verb, nothing near" 2 'unknown verb frobnicate$' frobnicate
expect "unknown option of the program" 2 'did you mean --version\?' --versoin
for verb in run plan experts eval export data devices check tune "bench step"; do
  expect "$verb --help" 0 "^usage: retort $verb" $verb --help
  expect "$verb: unknown option" 2 "retort $verb: unknown option --jsno \(did you mean --json\?\)" $verb --jsno
done
expect "bench --help" 0 '^usage: retort bench step' bench --help
expect "an option of another verb" 2 'devices takes no option --seed' devices --seed 3
expect "a value where none belongs" 2 '--json takes no value, found --json=3' devices --json=3
expect "no value where one belongs" 2 '--out needs a value: --out DIR' run x.yaml --out
expect "devices" 0 ' ok ' devices
expect "devices: who computes matrix products" 0 "matrix products: own kernels" devices
expect "devices --json" 0 '"self_test": "ok"' devices --json
expect "devices: operand" 2 'takes no operand, found x' devices x
if [ -e /dev/full ]; then
  for option in --help --help-keys; do # less and more than a buffer holds
    got=0
    "$program" run $option >/dev/full 2>err || got=$?
    report "run $option that cannot be written" "$([ $got = 1 ] && grep -q 'standard output could not be written' err ||
      echo "exit status $got: $(cat err)")"
  done
else
  skip "results that cannot be written: needs /dev/full"
fi
OCL_ICD_VENDORS=/nowhere expect "devices: none there" 1 'no OpenCL device found; install' devices
if "$program" devices 2>/dev/null | grep -q "Portable Computing Language"; then
  POCL_CACHE_DIR=/proc/nowhere expect "devices: a driver that finds none" 1 \
    'though a driver is installed \(.*Portable Computing Language.*POCL_CACHE_DIR' devices
  POCL_CACHE_DIR=/proc/nowhere expect "run: a driver that finds none" 1 'though a driver is installed' run \
    "$source/configs/quickstart.yaml" --out new
else
  skip "devices: a driver that finds none: needs PoCL"
fi

cat >small.yaml <<YAML
data: {kind: idx, path: $fashion, train_limit: 400, test_limit: 100}
network: {depth: 2, width: 4}
set: {init: real}
inner: {steps: 8}
method: {window: 4, range: 1}
outer: {steps: 12, lr: 0.01, real_batch: 32}
evaluate: {networks: 2, steps: [4, 8]}
YAML
expect "run: no descriptor" 2 'which descriptor\?' run
expect "run: two descriptors" 2 'one descriptor at a time, found b after a' run a b
expect "run: descriptor not there" 2 'cannot read nowhere\.yaml' run nowhere.yaml
expect "run: descriptor is a folder" 2 'cannot read \.: it is a folder' run .
expect "run: keys" 0 '`outer\.steps`.*Must be given' run --help-keys
expect "run: bad override" 2 '--set outer\.lr=fast: outer\.lr: found .fast., expected a number above 0' \
  run small.yaml --set outer.lr=fast
expect "run: override of no key" 2 'outer\.lrr: unknown key \(did you mean outer\.lr\?\)' run small.yaml --set outer.lrr=1
expect "run: override without value" 2 'expected KEY=VALUE' run small.yaml --set outer.lr
expect "run: bad seed" 2 '--seed one: seed: found .one.' run small.yaml --seed one
expect "run: negative seed" 2 '--seed -1: seed: found .-1.' run small.yaml --seed -1
expect "run: bad interval" 2 '--checkpoint-every never: expected a number' run small.yaml --checkpoint-every never
sed 's/window: 4/window: 4x/' small.yaml >wrong.yaml
expect "run: wrong value, with file and line" 2 'wrong\.yaml:5: method\.window: found .4x., expected a whole number' \
  run wrong.yaml
printf 'data:\n\tkind: idx\n' >tab.yaml
expect "run: a tab" 2 'tab\.yaml:2:1: not YAML: .*indent by spaces, not by tabs' run tab.yaml
sed 's/lr: 0.01/lr: 1e-2/' small.yaml >exponent.yaml
expect "run: windows that do not fit" 2 'inner\.steps=4.*past inner\.steps 4|method\.range.*past inner\.steps 4' \
  run small.yaml --set inner.steps=4
expect "run: resume without a descriptor or run" 2 'cannot read gone/descriptor\.yaml' run --resume --out gone
expect "run: data not there" 1 'data\.path: .*/gone' run small.yaml --set data.path=gone --out new
expect "run: package not there" 1 'install it: apt-get install dataset-fashion-mnist' \
  run small.yaml --set data.path=/usr/share/datasets/fashion-mnist-gone --out new
expect "run: device not there" 1 'nosuchdevice' run small.yaml --device nosuchdevice --out new
OCL_ICD_VENDORS=/nowhere expect "run: no OpenCL platform" 1 'OpenCL' run small.yaml --out new
expect "run: folder cannot be made" 1 'cannot create folder /proc/' run small.yaml --out /proc/nowhere
[ -d /sys/kernel ] && expect "run: and why" 1 'cannot create folder /sys/nowhere: (Operation not permitted|Permission denied)' \
  run small.yaml --out /sys/nowhere
if [ -e new ]; then report "failed runs leave no folder" "new exists"; else report "failed runs leave no folder" ""; fi
mkdir full && touch full/something
expect "run: folder not empty" 2 'full is not empty; go on with it by --resume' run small.yaml --out full
expect "run: nothing to resume" 2 'full holds no run to resume' run small.yaml --out full --resume
expect "run: folder is a file" 2 'small\.yaml is a file' run small.yaml --out small.yaml
expect "eval: nothing" 2 'what\? Name a run folder' eval
expect "eval: three operands" 2 'at most two files, found c after b' eval a b c
expect "eval: not there" 2 'gone is not there' eval gone
expect "eval: neither run nor set" 2 'neither a run folder nor a set' eval full
expect "eval: a pair without descriptor" 2 'name a descriptor with --with' eval a.npy b.npy
expect "eval: one file" 2 'is a file; name a folder, or both files' eval small.yaml
expect "export: nothing" 2 'what\? Name a run folder or a set' export
expect "export: two sets" 2 'one set at a time, found b after a' export a b
expect "export: not there" 2 'gone is not there; name a run folder or a set' export gone
expect "export: neither run nor set" 2 'full is neither a run folder nor a set' export full
expect "export: no such format" 2 '--format zip: expected npz, safetensors or png' export full --format zip
expect "check: no case" 2 'which cases\?' check
expect "check: not there" 1 'gone/case\.yaml' check gone
expect "check: wrong family" 2 '--family x: expected auto, cpu or gpu' check --family x full
mkdir case && printf 'image: [1, 4, 4]\nclasses: 3\nnetwork: {kind: mpl}\n' >case/case.yaml
expect "check: wrong case" 2 'case/case\.yaml:3: network\.kind: found .mpl., expected .*did you mean mlp' check case

# --- benchmarks ---
expect "bench: none" 2 'which benchmark\? A first one is step' bench
expect "bench: unknown" 2 'unknown benchmark stpe \(did you mean step\?\)' bench stpe
expect "bench: an option before the name" 2 'bench takes no option --json' bench --json step
expect "bench step: operand" 2 'bench step: takes no operand, found x' bench step x
expect "bench step: no image" 2 '--image 3,32: expected channels, height and width' bench step --image 3,32
expect "bench step: words behind an image" 2 '--image 3,32,32x: expected' bench step --image 3,32,32x
expect "bench step: image too small for the network" 2 'network: block 3 of 3' bench step --image 1,4,4
expect "bench step: no repetitions" 2 '--reps 0: expected a whole number of 1 to' bench step --reps 0
expect "bench step: no number" 2 '--ipc 1x: expected a whole number' bench step --ipc 1x
expect "bench step: too large a number" 2 '--prefix 99999999999999999999: expected' bench step --prefix 99999999999999999999
expect "bench step: no amount of memory" 2 '--memory 1furlong: expected an amount of memory' bench step --memory 1furlong
expect "bench step: device not there" 1 'nosuchdevice' bench step --device nosuchdevice
tiny=(--image 1,8,8 --width 4 --prefix 1 --window 2 --real 8 --reps 2)
expect "bench step" 0 '^speed +[0-9.]+ GFLOP/s' bench step "${tiny[@]}"
expect "bench step: too little memory" 1 'memory ceiling of 0.0 MB does not suffice' bench step "${tiny[@]}" --memory 9kB
expect "bench step: plan without a ceiling" 0 '^plan +inner batch 10 in 1, meta-loss batch 8 in 1, [0-9.]+ MB$' \
  bench step "${tiny[@]}"
expect "bench step: plan with room" 0 '^plan .*, values kept of 2 of 2 window steps, [0-9.]+ MB$' \
  bench step "${tiny[@]}" --width 16 --memory 64MiB
expect "bench step --profile" 0 '% (fma|copy) +k[0-9]+_' bench step "${tiny[@]}" --profile
"$program" bench step "${tiny[@]}" --json --profile >out 2>err
holds "bench step --json" out '
  .image == [1, 8, 8] and .ipc == 1 and .prefix == 1 and .window == 2 and .real == 8 and .width == 4 and .reps == 2
  and .seconds_min > 0 and .seconds_median >= .seconds_min and .first_seconds > 0 and .build_seconds > 0
  and .peak_rss_mb > 1 and .peak_device_bytes > 1000 and .gflop > 0 and .gflops > 0 and .share_of_peak > 0
  and .peak_gflops > 0 and .peak_gb_per_s > 0 and (.device | length) > 0 and (.version | length) > 0 and .loss > 0
  and .memory == 0 and .kept_steps == 0 and (.plan | startswith("inner batch 10 in 1"))
  and (.profile | length) > 10 and ([.profile[].share] | add | . > 0.999 and . < 1.001)
  and (.profile | all(.launches > 0 and (.bound == "fma" or .bound == "copy")))'

for name in conv gemm frequency; do
  expect "bench $name --help" 0 "^usage: retort bench $name" bench $name --help
  expect "bench $name: another's option" 2 "bench $name takes no option --ipc" bench $name --ipc 3
done
expect "bench conv: no side" 2 '--side 0: expected a whole number of 1 to' bench conv --side 0
expect "bench conv: more than kernels can count" 1 'more than 2\^31 - 1 elements' bench conv --side 4096 --batch 1000
expect "bench conv" 0 '^to weights +3 > 3 +8 x 8 +batch 2 .*GFLOP/s .* direct' bench conv --channels 3 --side 8 --batch 2
"$program" bench conv --channels 40 --side 8 --batch 3 --json >out 2>err
holds "bench conv --json" out '
  (.kernels | map(.pass) | unique) == ["forward", "to data", "to weights"]
  and (.kernels | all(.batch == 3 and .channels == 40 and .outputs == 40 and .side == 8 and .seconds > 0 and .gflops > 0
    and .share_of_peak > 0 and .relative_error < 1e-5 and (.file | endswith(".cl"))))
  and .rows[0].gb_per_s > 0 and .rows[0].share_of_copy > 0 and .peak_gflops > 0'
"$program" bench gemm --json >out 2>err
holds "bench gemm --json" out '
  (.kernels | length) > 20 and (.kernels | all(.m > 0 and .n > 0 and .k > 0 and .gflops > 0 and .share_of_peak > 0
    and .relative_error < 1e-5 and (.file | endswith(".cl"))))'

"$program" bench frequency --json >out 2>err
if [[ $(ldd "$program") == *clFFT* ]]; then
  holds "bench frequency --json" out '
    (.library | startswith("clFFT")) and (.sides | map(.side)) == [28, 32, 64, 128, 224] and (.summary | length) > 0
    and (.sides | all(.images > 0 and .channels == 3 and .difference < 1e-5
      and ([.matrix, .clfft] | all(.seconds_min > 0 and .seconds_median >= .seconds_min))))
    and has("crossover") and .peak_gflops > 0'
else
  holds "bench frequency --json" out '
    .library == null and .crossover == null and (.summary | contains("libclfft-dev"))
    and (.sides | map(.side)) == [28, 32, 64, 128, 224]
    and (.sides | all(.clfft == null and .difference == null and .matrix.seconds_min > 0))'
fi

# --- kernels for devices that need not be there ---
expect "kernels --help" 0 '^usage: retort kernels' kernels --help
expect "kernels: another's option" 2 'kernels takes no option --reps' kernels --reps 3
expect "kernels: operand" 2 'takes no operand, found x' kernels x
expect "kernels --list" 0 '^gpu +28 +3584 +11\.8 GiB GeForce RTX 3060 \(sm_86\) / NVIDIA CUDA$' kernels --list
expect "kernels: device not known" 1 'no described device matches "voodoo"; name one by words of its line:$' \
  kernels --as voodoo
expect "kernels: several known" 1 '3 described devices match "geforce"; name one' kernels --as geforce
expect "kernels: two devices" 2 '--as names a known device, --device one that is there' kernels --as a770 --device 0
expect "kernels: step or convolution" 2 '--ipc is for an outer step, --side for a convolution' kernels --ipc 2 --side 8
expect "kernels: folder cannot be made" 1 'cannot create folder /proc/' kernels --as a770 --out /proc/nowhere
tiny=(--image 1,8,8 --width 4 --prefix 1 --window 2 --real 8)
OCL_ICD_VENDORS=/nowhere expect "kernels: of a described device, without any driver" 0 '^[0-9]+ launches an outer step$' \
  kernels --as "rtx 3060" "${tiny[@]}"
launches() { grep -E '^ *[0-9]+  k[0-9]+ '; }
"$program" kernels --family gpu "${tiny[@]}" 2>err | launches >a
"$program" bench step --family gpu "${tiny[@]}" --reps 1 --launches 2>>err | launches >b
if [ -s a ]; then same "kernels lists the launches of bench step" a b; else
  report "kernels lists the launches of bench step" "none: $(cat err)"; fi
expect "kernels --out" 0 '^amd/program\.cl$' kernels --as gfx1030 --image 3,32,32 --width 64 --ipc 10 --out amd
launches <amd/launches.txt | sed -E 's/^ *[0-9]+  (k[0-9]+) .*/\1/' | sort -u >a
sed -nE 's/^#define KERNEL (k[0-9]+)_.*/\1/p' amd/program.cl | sort >b
if [ -s a ]; then same "the program has the kernels that are launched" a b; else
  report "the program has the kernels that are launched" "amd/launches.txt has none"; fi
expect "kernels: another device" 0 '^nvidia/launches\.txt$' kernels --as gtx --image 3,32,32 --width 64 --ipc 10 --out nvidia
if cmp -s amd/program.cl nvidia/program.cl; then report "a larger device is given other tiles" "the same program"; else
  report "a larger device is given other tiles" ""; fi
"$program" kernels --as gfx1030 "${tiny[@]}" 2>err | launches >a
RETORT_MERGE=off "$program" kernels --as gfx1030 "${tiny[@]}" 2>>err | launches >b
if grep -q ' + [0-9]' a && [ -s b ] && ! grep -q ' + [0-9]' b; then report "kernels: RETORT_MERGE=off" ""; else
  report "kernels: RETORT_MERGE=off" "$(cat err) $(wc -l a b)"; fi
RETORT_MERGE=no expect "kernels: RETORT_MERGE is nonsense" 2 'RETORT_MERGE=no in the environment: expected auto or off' \
  kernels --as gfx1030
expect "kernels of a convolution" 0 '^convolution to weights +[0-9]+ launches' kernels --as pvc --side 8 --batch 3

# --- tuning ---
expect "tune: nowhere to remember" 2 'RETORT_WISDOM is off' tune
export RETORT_WISDOM=$work/caches/wisdom
expect "tune: two descriptors" 2 'one descriptor at a time, found b after a' tune a b
expect "tune: descriptor not there" 2 'cannot read nowhere\.yaml' tune nowhere.yaml
expect "tune: sizes twice" 2 'sizes come from a; override them with --set' tune a --width 3
expect "tune: an override of nothing" 2 'overrides a key of a descriptor; name one' tune --set outer.lr=1
expect "tune: no image" 2 '--image 3,32: expected channels, height and width' tune --image 3,32
expect "tune: device not there" 1 'nosuchdevice' tune --device nosuchdevice
tiny=(--image 1,8,8 --width 4 --real 8 --quick)
"$program" tune "${tiny[@]}" --json >out 2>err
# What was found is there; nothing may have been, on a busy machine.
if grep -q '"choice": "' out && ! grep -q '^conv' caches/wisdom; then report "tune remembers" "no line in caches/wisdom"; else
  report "tune remembers" ""; fi
holds "tune --json" out '
  (.classes | length) > 5 and .built_in_seconds >= .best_seconds and .best_seconds > 0 and (.wisdom | endswith("caches/wisdom"))
  and (.classes | all(.built_in_seconds > 0 and .best_seconds > 0 and .best_seconds <= .built_in_seconds and .tried > 0
    and .wrong == 0 and .worst_error < 1e-5 and .launches > 0))'
RETORT_WISDOM=$work/dry expect "tune --dry-run" 0 '^all launches once: [0-9.]+ ms built in, [0-9.]+ ms tuned' \
  tune --image 1,8,8 --width 1 --real 2 --ipc 1 --quick --dry-run
[ -e dry ] && report "a dry run remembers nothing" "dry exists" || report "a dry run remembers nothing" ""
echo 'Dear reader' >letter
RETORT_WISDOM=letter expect "tune: a file that is no wisdom" 1 'letter:1: expected "retort wisdom 2"' tune "${tiny[@]}"
rm -f out # what an earlier command left must not be taken for the tuner's: it would be interrupted before it can heed it
"$program" tune --image 3,32,32 --width 64 --dry-run >out 2>err </dev/null &
tuner=$!
for ((i = 0; i < 1200; i++)); do [ -e out ] && [ "$(wc -l <out)" -ge 2 ] && break || sleep 0.1; done
kill -INT $tuner
got=0
wait $tuner || got=$?
complaint=
[ $got = 130 ] || complaint="exit status $got"
grep -q 'interrupted; what was found is kept' err || complaint+=" $(cat err)"
grep -q '^all launches once' out || complaint+=" no sums of what was measured"
report "tune: interrupted" "$complaint"
# bad_tuning HOW: `retort tune` with a driver that does that in one of the kernels tried.
bad_tuning() {
  RETORT_TEST_BAD="$1 conv_cpu" LD_PRELOAD=$RETORT_FALSE_DRIVER ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 \
    RETORT_WISDOM=$work/bad-$1 expect "tune: $2" 0 "direct for a convolution.*: $3; it is not tried again" \
    tune tuned.yaml --quick
  has "tune: $2: it is remembered" '^bad	.*	direct 0 0 0$' "bad-$1"
  grep -q '^conv	.* 16 14 14 16 .*	direct' "bad-$1" && report "tune: $2: it is not chosen" "$(cat "bad-$1")" ||
    report "tune: $2: it is not chosen" ""
  has "tune: $2: the rest is tuned" '^all launches once: ' out
  has "tune: $2: to the end" '^tuned	' "bad-$1"
}
if [ -n "${RETORT_FALSE_DRIVER:-}" ] && [ -d "$fashion" ]; then
  sed 's/width: 4/width: 16/' small.yaml >tuned.yaml
  bad_tuning crash "a kernel that crashes" 'it ends the process that runs it'
  bad_tuning hang "a kernel that hangs" 'it does not end'
  bad_tuning corrupt "a kernel that is wrong" 'its result is wrong'
  # A library is tested in the child too, and once is enough: no product is asked of it any more.
  if [[ $(ldd "$program") == *clblast* ]]; then
    sed 's/^network:.*/network: {kind: mlp, width: 8, depth: 1, norm: none}/' small.yaml >products.yaml
    RETORT_TEST_BAD="crash Xgemm" LD_PRELOAD=$RETORT_FALSE_DRIVER \
      ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 RETORT_WISDOM=$work/bad-library \
      expect "tune: a library that crashes" 0 'clblast for a product.*: it ends the process that runs it; it is not' \
      tune products.yaml --quick --set device.gemm=clblast
    has "tune: a library that crashes: it is remembered" '^bad	.*	clblast$' bad-library
    report "tune: a library that crashes: once" "$(grep -c '^bad' bad-library | grep -v '^1$')"
    has "tune: a library that crashes: the rest is tuned" '^tuned	' bad-library
    RETORT_WISDOM=$work/bad-library expect "devices: a library that crashed" 0 'matrix products: own kernels' devices
  else
    skip "tune: a library that crashes: this build has no CLBlast"
  fi
else
  skip "tuning with bad kernels: RETORT_FALSE_DRIVER does not name the library, or no images"
fi
before=$SECONDS
expect "tune: kernels for GPUs, in a given time" 0 '"best_seconds"' \
  tune --image 1,8,8 --width 16 --real 8 --family gpu --tune-seconds 1 --dry-run --json
holds "tune: a second is for the class with most arithmetic" out '
  (.classes | length) >= 1 and .classes[0].tried >= 1 and .classes[0].built_in_seconds > 0'
spent=$((SECONDS - before))
if [ $spent -lt 40 ]; then report "tune: ends in time" ""; else report "tune: ends in time" "took $spent seconds"; fi
expect "tune: no time" 2 '--tune-seconds 0: expected a number of seconds above 0' tune --tune-seconds 0
export RETORT_WISDOM=off

# --- whole runs ---
if [ ! -d "$fashion" ]; then
  skip "runs: needs Debian's dataset-fashion-mnist"
  echo "1..$number"
  exit $failed
fi
expect "dry run" 0 'everything is ready for 12 outer steps' run small.yaml --dry-run --out new
[ -e new ] && report "a dry run writes nothing" "new exists" || report "a dry run writes nothing" ""
if "$program" devices 2>/dev/null | grep -qi "portable computing"; then
  POCL_CACHE_DIR=$PWD/fresh RETORT_CACHE=off expect "kernels are built before the clock starts, and counted" 0 \
    '^building kernels ([0-9]+)/\1 ' run small.yaml --dry-run --device pocl
else
  skip "kernels are built before the clock starts: needs PoCL"
fi
expect "run" 0 '^distilled +[0-9.]+ ' run small.yaml --out whole
has "run: what it will take, in two lines: memory" \
  "^plan: at most [0-9.]+ MB of the device's [0-9]+ MB; distilling: inner batch" err
has "run: what it will take: time" '^plan: about [0-9hms]+: 12 outer steps of [0-9.e-]+ s, .*; evaluation [0-9hms]+' err
holds "run: and keeps it" whole/plan.json '.estimate.seconds.distil > 0 and .estimate.seconds.evaluate > 0 and
  .estimate.peak_device_bytes > 0'
for file in descriptor.yaml plan.json metrics.jsonl preview.png previews/000000.png previews/000012.png result.json set/images.npy set/labels.npy \
  set/normalisation.npz set/set.json; do
  [ -s "whole/$file" ] || report "whole/$file" "not there"
done
for key in set_sha256 device wisdom gemm protocol accuracy distilled random mean sd runs seconds distil evaluate build_kernels \
  outer_steps peak_device_bytes; do
  grep -q "\"$key\"" whole/result.json || report "result.json" "no $key"
done
report "run folder complete" ""
has "set.json names the classes" '"Ankle boot"' whole/set/set.json
has "result names the hash" "\"set_sha256\": \"$(cat whole/set/images.npy whole/set/labels.npy | sha256sum | cut -c1-64)\"" \
  whole/result.json
if [ "$(wc -l <whole/metrics.jsonl)" = 12 ]; then report "a metrics line per step" ""; else
  report "a metrics line per step" "$(wc -l whole/metrics.jsonl)"; fi
expect "run: the descriptor it wrote is one" 0 'is finished already' run whole/descriptor.yaml --out whole --resume
expect "run: finished, by the folder alone" 0 'is finished already' run --out whole --resume
expect "run: resume with another descriptor" 2 'begun with outer\.lr 0\.01, this command says 0\.02' \
  run small.yaml --out whole --resume --set outer.lr=0.02
expect "run: more real images than there are" 2 'has only 400 images; set outer\.real_batch: 400' run small.yaml \
  --set outer.real_batch=1000 --out no
expect "run: a network that is too deep" 2 'retort run: network: block 5 of 5 would normalise' run small.yaml \
  --set network.depth=5 --out no
cp -r whole busy && rm busy/result.json
got=0
flock busy "$program" run --resume --out busy >out 2>err || got=$?
report "run: another is at work" "$([ $got = 2 ] && grep -q 'another run is at work in busy; wait for it or stop it' err ||
  echo "exit status $got: $(cat err)")"
expect "run again" 0 '"set_sha256"' run exponent.yaml --out again --json
same "one seed, one set: images" whole/set/images.npy again/set/images.npy
same "one seed, one set: set.json" whole/set/set.json again/set/set.json

expect "run --profile" 0 '^ +[0-9.]+ .* (fma|copy) +k[0-9]+_' run small.yaml --out profiled --profile
same "a profile changes no images" whole/set/images.npy profiled/set/images.npy
same "a profile changes no set.json" whole/set/set.json profiled/set/set.json
head -n 12 profiled/metrics.jsonl | sed 's/"seconds":[^,}]*//' >a
sed 's/"seconds":[^,}]*//' whole/metrics.jsonl >b
same "a profile changes no metrics" a b
tail -n 1 profiled/metrics.jsonl >out
holds "a profile is the last line of metrics.jsonl" out '
  .peak_gflops > 0 and .peak_gb_per_s > 0 and (.profile | length) > 10
  and ([.profile[].share] | add | . > 0.999 and . < 1.001)
  and (.profile | map(.seconds) | . == (sort | reverse))
  and (.profile | all(.launches > 0 and .gflops >= 0 and .gb_per_s > 0 and .share_of_peak > 0
    and (.kernel | startswith("k"))))'

accuracies() { sed -n '/"accuracy"/,/"seconds"/p' "$1"; }
# Killed at different moments, as often as it takes, then compared with the run that was not.
survives() { # name, kill command
  local sittings=0 status
  while :; do
    "$program" run small.yaml --out "$1" --resume --checkpoint-every 0.05 >out 2>err </dev/null &
    local pid=$!
    (sleep "$(awk -v n=$sittings 'BEGIN { print 0.6 * 1.3 ^ n }')"; kill -"$2" $pid) 2>/dev/null &
    local killer=$!
    status=0
    wait $pid || status=$?
    kill $killer 2>/dev/null
    wait $killer 2>/dev/null
    sittings=$((sittings + 1))
    [ $status = 0 ] && break
    if [ $status != "$3" ] || [ $sittings -gt 40 ]; then
      report "$1: resumed to the end" "exit status $status after $sittings sittings: $(cat err)"
      return
    fi
  done
  report "$1: resumed to the end" ""
  same "$1: the same images" whole/set/images.npy "$1/set/images.npy"
  same "$1: the same set.json" whole/set/set.json "$1/set/set.json"
  if diff -r whole/previews "$1/previews" >out && cmp -s whole/preview.png "$1/preview.png"; then
    report "$1: the same pictures on the way" ""
  else
    report "$1: the same pictures on the way" "$(cat out) or preview.png differ"
  fi
  accuracies whole/result.json >a
  accuracies "$1/result.json" >b
  same "$1: the same accuracies" a b
  if [ "$(wc -l <"$1/metrics.jsonl")" = 12 ]; then report "$1: a metrics line per step" ""; else
    report "$1: a metrics line per step" "$(wc -l "$1/metrics.jsonl")"; fi
} 2>/dev/null
survives killed KILL 137
survives interrupted INT 130
survives terminated TERM 130

# A run that ends too soon, with two checkpoints: the newest is damaged, then the disk fails.
"$program" run small.yaml --out torn --checkpoint-every 0.01 -q >out 2>err </dev/null
rm torn/result.json
cp -r torn broken
newest=$(ls torn/checkpoint/*.npz | tail -n 1)
mv "$newest" aside.npz && mkdir "$newest"
expect "a checkpoint that cannot be read stops the run" 1 'cannot be read; nothing was changed' \
  run small.yaml --out torn --resume
rmdir "$newest" && mv aside.npz "$newest"
printf 'not what it was' | dd of="$newest" bs=1 seek=200 conv=notrunc status=none
expect "a damaged checkpoint is passed over" 0 'is damaged .*taking the one before it' run small.yaml --out torn --resume
same "and the set is the same" whole/set/images.npy torn/set/images.npy
rm -rf broken/metrics.jsonl && mkdir broken/metrics.jsonl
expect "metrics that cannot be written" 1 'cannot write broken/metrics\.jsonl' run small.yaml --out broken --resume
# --- drivers with defects, by a library that is preloaded ---
# disturbed WORDS...: the words with that library.
disturbed() { LD_PRELOAD=$RETORT_FALSE_DRIVER ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "$@"; }
# A device that fails in the middle of a run, which is then gone on with where it works again.
loses() { # name, failure of the driver, words
  RETORT_TEST_FAIL=$2 RETORT_TEST_AFTER=lost/descriptor.yaml disturbed \
    expect "$1: the run ends" 1 "$3" run small.yaml --out lost --checkpoint-every 0.000001 -q
  has "$1: and says how to go on" 'run --resume --out lost' err
  expect "$1: resumed" 0 '^distilled' run small.yaml --out lost --resume
  has "$1: from a checkpoint" 'resuming after outer step [1-9]' err
  same "$1: the set is the same" whole/set/images.npy lost/set/images.npy
  accuracies lost/result.json >b
  same "$1: and so are the accuracies" a b
  rm -rf lost
}
if [ -n "${RETORT_FALSE_DRIVER:-}" ]; then
  RETORT_TEST_PRINT='a driver speaks' disturbed "$program" devices --json >out 2>err
  holds "what a driver prints stays out of the results" out '.[0].self_test == "ok"'
  has "and can be read" 'a driver speaks' err
  RETORT_TEST_COUNT=launches RETORT_TEST_AFTER=counted/descriptor.yaml disturbed \
    "$program" run small.yaml --out counted -q >out 2>err </dev/null
  same "an undisturbed run" whole/set/images.npy counted/set/images.npy
  read -r launches reads <launches
  after() { echo $((launches * $1 / 100)); } # percent of the run
  accuracies whole/result.json >a
  loses "out of resources" "launch $(after 30) -5" 'outer step .*CL_OUT_OF_RESOURCES .*memory that ran out'
  loses "device lost" "launch $(after 50) -2" 'CL_DEVICE_NOT_AVAILABLE .*lost the device'
  loses "memory full" "launch $(after 70) -4" 'CL_MEM_OBJECT_ALLOCATION_FAILURE .*set `memory`'
  loses "lost while results are read" "read $((reads - 3)) -5" 'CL_OUT_OF_RESOURCES'
  # The first run on a GPU that is new; which the false driver only claims to be, so with kernels for CPUs.
  first() { RETORT_TEST_KIND=gpu RETORT_WISDOM=$work/first disturbed expect "$@" --set device.family=cpu; }
  first "first run on a GPU: tunes in time" 0 'tuning kernels for .*, which is new here, for about 4 s' \
    run small.yaml --out first-run --tune-seconds 4
  has "first run on a GPU: and says what it found" '^tuned: [0-9]+ better choices? for [0-9]+ of [0-9]+ classes' err
  has "first run on a GPU: and keeps that it has" '^tuned	' first
  report "first run on a GPU: opens it once" "$(grep -c '^device: ' err | grep -vx 1)"
  first "second run: tunes nothing" 0 '^distilled' run small.yaml --out second-run
  if grep -q tuning err; then report "second run: nor says so" "$(cat err)"; else report "second run: nor says so" ""; fi
  rm first
  first "first run: --no-tune" 0 '^distilled' run small.yaml --out third-run --no-tune
  first "first run: not when it reads only" 0 'everything is ready' run small.yaml --out no --dry-run
  if [ -e first ]; then report "first run: nothing tuned" "$(cat first)"; else report "first run: nothing tuned" ""; fi
  same "with kernels as they are built in" whole/set/images.npy third-run/set/images.npy
  RETORT_WISDOM=off RETORT_TEST_KIND=gpu disturbed expect "first run: no wisdom wanted" 0 'not tuned for .*RETORT_WISDOM' \
    run small.yaml --out fourth-run --set device.family=cpu
  # A driver that computes a kernel wrongly: the next one is taken, and kept by the run.
  RETORT_CONV=direct "$program" run small.yaml --set network.width=16 --out direct -q >out 2>err </dev/null
  RETORT_TEST_BAD="corrupt winograd" disturbed expect "a wrong kernel is replaced" 0 \
    'winograd4 is not used for a convolution, 16 > 16 channels.*result is wrong.*; direct is used instead' \
    run small.yaml --set network.width=16 --out replaced
  same "by the next row" direct/set/images.npy replaced/set/images.npy
  has "which the run remembers" '^bad	.*winograd4 0 0 0$' replaced/wisdom
  rm -rf replaced/result.json replaced/set
  expect "and takes again where the driver is mended" 0 '^distilled' run small.yaml --set network.width=16 --out replaced --resume
  same "with the same set" direct/set/images.npy replaced/set/images.npy
  RETORT_TEST_BAD="refuse winograd" disturbed expect "a kernel that cannot be launched" 0 \
    'the driver cannot build or run it.*; direct is used instead' run small.yaml --set network.width=16 --out refused
  for fault in "outside:writes outside" "vary:other numbers each time"; do
    RETORT_TEST_BAD="${fault%%:*} winograd" disturbed expect "eval: a kernel that ${fault#*:}" 0 "it ${fault#*:}|gives ${fault#*:}" \
      eval direct/set
  done
  RETORT_TEST_BAD="corrupt _cpu_cl" disturbed expect "no kernel is right" 1 \
    'cannot compute a convolution.* is the last kernel for it.*retort devices.*update the driver' \
    run small.yaml --set network.width=16 --out no
  # On GPUs own matrix products are tested too.
  sed 's/^network:.*/network: {kind: mlp, width: 8, depth: 1, norm: none}/' small.yaml >products.yaml
  RETORT_MERGE=off RETORT_TEST_KIND=gpu RETORT_TEST_BAD="corrupt t2_0_product_gpu" disturbed expect \
    "a wrong kernel for products is replaced" 0 \
    'own is not used for a product, .*result is wrong.*; own [0-9 ]+ is used instead' run products.yaml --out products \
    --set device.family=gpu --set outer.steps=2 --set evaluate.networks=1 --set evaluate.steps=[4] --no-tune
  has "which the run remembers" '^bad	.*	product .*	own$' products/wisdom
  # A GPU's driver that computes merged kernels wrongly, whose names have a plus: each gets a launch of its own.
  RETORT_TEST_KIND=gpu RETORT_TEST_BAD="corrupt ___" disturbed expect "merged kernels are wrong" 0 \
    'kernels wrongly that are merged into one launch .*each gets a launch of its own' run small.yaml --out no --dry-run
  merged_wrongly() { RETORT_TEST_KIND=gpu RETORT_TEST_BAD="corrupt ___" disturbed expect "$@"; }
  merged_wrongly "device.merge: off goes without them" 0 'everything is ready' run small.yaml --out no --dry-run \
    --set device.merge=off
  lacks "and without that warning" 'merged into one launch' err
  RETORT_MERGE=off merged_wrongly "RETORT_MERGE=off too" 0 'everything is ready' run small.yaml --out no --dry-run
  lacks "and without that warning" 'merged into one launch' err
  merged_wrongly "a run without them" 0 '^distilled' run small.yaml --out unmerged --no-tune
  has "writes that down" '"merge": "off"' unmerged/plan.json
  rm -rf unmerged/result.json unmerged/set
  merged_wrongly "and is resumed without them" 0 '^distilled' run small.yaml --out unmerged --resume
  lacks "nor does it try them" 'merged into one launch' err
  RETORT_TEST_KIND=gpu RETORT_TEST_BAD="corrupt fused" disturbed expect "all of the compiler's kernels are" 1 \
    'a small training step is off by .*retort devices' run small.yaml --out no --dry-run
else
  skip "drivers with defects: RETORT_FALSE_DRIVER does not name the library"
fi

# --- distribution matching: another method, by the same commands ---
matching=(--set method='{name: dm, real_per_class: 8}' --set outer='{steps: 60}' --set evaluate='{epochs: 3}')
grep -v '^method:' small.yaml >matching.yaml
expect "dm: runs" 0 '^distilled +[0-9.]+' run matching.yaml "${matching[@]}" --out matched
holds "dm: the result says the method" matched/result.json '.method == "dm" and .outer_steps == 60'
has "dm: a line a step, with its own numbers" '^\{"outer_step":60,"loss":[0-9.e-]+,"gradient_norm":' matched/metrics.jsonl
expect "dm: another method's key" 2 'method\.window belongs to method bptt, this is dm' \
  run matching.yaml "${matching[@]}" --set method.window=3 --out no
expect "dm: labels it does not learn" 2 'set\.labels: method dm does not learn labels' \
  run matching.yaml "${matching[@]}" --set set.labels=soft --out no
"$program" run matching.yaml "${matching[@]}" --out matched-again --checkpoint-every 0.01 -q >out 2>err </dev/null &
pid=$!
until [ -e matched-again/checkpoint ] && ls matched-again/checkpoint/*.json >/dev/null 2>&1; do
  kill -0 $pid 2>/dev/null || break
  sleep 0.02
done
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null
if [ -e matched-again/result.json ]; then skip "dm: killed before its end: it was done already"; else
  report "dm: killed before its end" ""
fi
expect "dm: resumed" 0 '^distilled|finished already' run matching.yaml "${matching[@]}" --out matched-again --resume
same "dm: the set is the same" matched/set/images.npy matched-again/set/images.npy

expect "a ceiling too low" 1 'memory|ceiling|bytes|MiB' run small.yaml --set memory=4KiB --out low

# --- data ---
expect "data: files, classes, sizes" 0 "^5 +Sandal +6000 +0 +1000" data small.yaml --set data.train_limit=all \
  --set data.test_limit=all
expect "data: every file is named" 0 "^ +test: $fashion/t10k-labels-idx1-ubyte.gz: their labels" data small.yaml
has "data: pixels before they are normalised" '^0 +0\.28[0-9]+ +0\.35[0-9]+ +0\.0000 +1\.0000' out
expect "data: a contact sheet" 0 'sheet.png: the first images' data small.yaml --sheet sheet.png
has "data: the sheet is a PNG" 'PNG' sheet.png
expect "data: for programs" 0 '"name": "Ankle boot"' data small.yaml --json
expect "data: no descriptor" 2 'which descriptor' data
expect "data: a mistake in it" 2 'data.tset: unknown key \(did you mean data.test' data small.yaml --set data.tset=1
mkdir -p pairs && cp "$fashion/t10k-images-idx3-ubyte.gz" pairs/own-images.idx3-ubyte.gz &&
  cp "$fashion/t10k-labels-idx1-ubyte.gz" pairs/own-labels.idx1-ubyte.gz
expect "data: a test part where there is none" 0 '8000 training, 0 held out, 2000 test' data small.yaml \
  --set data.path="$work/pairs" --set data.train_limit=all

# --- plans ---
mkdir planned && cd planned && cp ../small.yaml .
expect "plan" 0 '^ +[0-9.]+ s +an outer step on the average' plan small.yaml
has "plan: memory by what it holds" '^ +[0-9.]+    weights and optimiser states of the window$' out
has "plan: it fits" '^ +[0-9.]+  at most, of [0-9]+ that the device has: it fits$' out
has "plan: in all" '^ +[0-9.ms]+ .* in all$' out
expect "plan: side by side" 0 '^device memory at most, MB +[0-9.]+ +[0-9.]+ +too large$' plan small.yaml \
  --what-if 'set.ipc=2,evaluate.steps=[5, 10],memory=50MB' --what-if memory=4KiB
has "plan: what each column is" '^  2  set.ipc=2,evaluate.steps=\[5, 10\],memory=50MB$' out
has "plan: why one is too large" '^  3  .*memory ceiling of 0.0 MB does not suffice' out
expect "plan: for programs" 0 '"peak_device_bytes"' plan small.yaml --what-if memory=4KiB --json
holds "plan: for programs: each column" out '(. | length) == 2 and .[0].fits and (.[1].fits | not) and
  .[0].seconds.outer_step > 0 and (.[0].memory | map(.bytes) | add) == .[0].distil_bytes'
expect "plan: too large" 1 'memory ceiling of 0.0 MB does not suffice' plan small.yaml --set memory=4KiB
expect "plan: no descriptor" 2 'which descriptor' plan
expect "plan: two of them" 2 'one descriptor at a time' plan small.yaml small.yaml
expect "plan: a mistake in what if" 2 'what-if set.ipx=2.*set.ipx: unknown key \(did you mean set.ipc' \
  plan small.yaml --what-if set.ipx=2
expect "plan: what if says nothing" 2 'what-if' plan small.yaml --what-if ''
mkdir peak && (cd peak && "$program" plan ../small.yaml --json 2>/dev/null)>peak/plan
if command -v jq >/dev/null; then
  report "plan: the memory is the run's, to the byte" \
    "$(diff <(jq .peak_device_bytes peak/plan) <(jq .peak_device_bytes ../whole/result.json))"
else
  skip "plan: the memory is the run's: needs jq"
fi
rm -r peak
report "plan: writes nothing" "$(ls | grep -vx 'small.yaml\|out\|err')"
cd ..

# --- foreign sets and bad bytes ---
expect "eval of a run" 0 '^distilled +[0-9.]+ ' eval whole
"$program" eval whole --json >out 2>err
accuracies out | sed 's/^  //' >a
accuracies whole/result.json | sed 's/^  //' >b
same "eval repeats the run's accuracies" a b
# --- exports, read back ---
for format in npz safetensors png; do
  expect "export: $format" 0 '^to load +exported-'$format'/README\.md' export whole --format $format --out exported-$format
  "$program" eval exported-$format --json >out 2>err
  has "eval of an export: $format: the set is the same" \
    "\"set_sha256\": \"$(cat whole/set/images.npy whole/set/labels.npy | sha256sum | cut -c1-64)\"" out
  accuracies out | sed 's/^  //' >a
  same "eval of an export: $format: and so are the accuracies" a b
done
expect "export: without a device, beside the run" 0 '"folder": "whole-npz"' export whole --json
expect "export: nothing is overwritten" 2 'whole-npz is not empty, and nothing in it will be overwritten' export whole
expect "export of an export" 0 '^folder +again-png' export exported-safetensors/set.safetensors --format png --out again-png
same "export of an export: the arrays are the same file" exported-npz/set.npz again-png/set.npz
expect "eval of a file" 0 '^distilled ' eval exported-npz/set.npz --set evaluate.networks=1 --set 'evaluate.steps=[2]'
expect "eval of an export: another normalisation" 2 'was made for mean_sd' eval exported-npz --set data.normalise=none
cp -r whole/set changed && cp changed/images.npy changed.npy
tail -c 4 changed.npy | cmp -s - <(printf '\0\0\0\0') && last='\1\0\0\0' || last='\0\0\0\0'
(head -c -4 changed.npy; printf "$last") >changed/images.npy
expect "eval of a set that was changed says so" 0 'changed/images\.npy and the labels are not those that were distilled' \
  eval changed --set evaluate.networks=1 --set 'evaluate.steps=[2]'
echo '{"classes": 10}' >changed/set.json
expect "export of a set that tells too little" 1 'changed/set\.json: expected classes, ipc, class_names and recipe' export changed

expect "eval of a set, another protocol" 0 '^protocol +dc' eval whole/set --set evaluate.protocol=dc \
  --set evaluate.epochs=3 --set evaluate.networks=1
expect "eval of two files" 0 '^random ' eval whole/set/images.npy whole/set/labels.npy --with small.yaml
expect "eval: a set of another size than the descriptor's" 0 '^random ' \
  eval whole/set/images.npy whole/set/labels.npy --with small.yaml --set set.ipc=40
lacks "eval: is planned by its own" 'fewer than the 40 of the set' err
expect "eval: labels are no labels" 1 'expected whole numbers \[N\]' eval whole/set/images.npy whole/set/images.npy \
  --with small.yaml
expect "eval: another normalisation" 2 'was made for mean_sd' eval whole --set data.normalise=zca
# --- reports ---
expect "report --help" 0 "^usage: retort report" report --help
expect "report: of nothing" 2 'of what\? Name a run folder' report
expect "report: not there" 2 'gone is not there; name a run folder' report gone
expect "report: no run" 2 'full is no run folder: it holds neither' report full
expect "report" 0 '^report +whole/report\.html$' report whole
expect "report: again" 0 '^report +whole/report\.html$' report whole
expect "report of a run with a profile, elsewhere" 0 '^report +page\.html$' report profiled --out page.html
has "report: where the device's time went" 'id="device-time"' page.html
expect "report: runs beside each other" 0 '^report +report\.html$' report whole profiled
echo mine >mine.html
expect "report: somebody's file" 2 'mine\.html is there and is no report' report whole --out mine.html
has "somebody's file is left alone" '^mine$' mine.html
if command -v python3 >/dev/null; then
  for page in whole/report.html page.html report.html; do
    python3 "$source/tests/html_page.py" "$page" >out 2>&1 && report "$page is sound HTML" "" ||
      report "$page is sound HTML" "$(cat out)"
  done
else
  skip "pages are sound HTML: needs python3"
fi
mkdir data
for file in "$fashion"/*; do ln -s "$file" data/; done
rm data/train-labels-idx1-ubyte.gz && head -c 3000 "$fashion/train-labels-idx1-ubyte.gz" >data/train-labels-idx1-ubyte.gz
# --- several seeds ---
expect "seeds: a list that is none" 2 '--seeds 3-1: expected whole numbers such as 0-4' run small.yaml --seeds 3-1
expect "seeds: one and several" 2 'take one of them' run small.yaml --seeds 0-1 --seed 0
expect "seeds: a wrong key is told once" 2 'outer\.lrr: unknown key' run small.yaml --seeds 0-1 --set outer.lrr=1
expect "seeds: the shares of other devices" 2 'device\.shares: found 3, but there are 2 devices' \
  run small.yaml --seeds 0-1 --device cpu,cpu --set device.shares=[1,1,1]
mkdir -p seeds/seed-2 && touch seeds/seed-2/mine
expect "seeds: one that cannot begin" 1 '1 of 3 seeds have no result' \
  run small.yaml --seeds 0-2 --device cpu,cpu --set device.shares=[2,1] --out seeds
grep -q 'seed 0 .* seeds/seed-0' out || { cat out; failed=1; }
"$program" run small.yaml --seed 1 --device cpu --out seed-1-alone -q >out 2>err </dev/null
same "seeds: the run of a seed is that of the seed alone" seeds/seed-1/set/images.npy seed-1-alone/set/images.npy
rm -r seeds/seed-2
expect "seeds: the rest on a second attempt" 0 '"mean"' run small.yaml --seeds 0-2 --device cpu,cpu \
  --set device.shares=[2,1] --out seeds --resume --json
holds "seeds: all of them, with mean and spread" out \
  '(.seeds | map(.seed)) == [0, 1, 2] and .distilled.sd > 0 and ((.seeds | map(.distilled) | add / 3) - .distilled.mean | fabs) < 1e-9'

many=()
for _ in {1..100}; do many+=(--set outer.steps=2); done
expect "seeds: any number of settings" 0 'seed 4 .* many/seed-4' run small.yaml --seeds 4 --out many "${many[@]}"
expect "seeds: none of the settings is lost" 0 'outer steps|"outer_steps": 2' run --resume --out many/seed-4 --json

expect "truncated labels" 1 'data/train-labels-idx1-ubyte\.gz' run small.yaml --set data.path="$work/data" --out new
echo "1..$number"
exit $failed
