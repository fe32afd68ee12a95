#!/usr/bin/env bash
# Makes the pictures of README.md and docs/report.md (docs/images/) from real runs: the quick start, and the quick start
# with two other placements of the window.
#
#   bench/pictures.sh [FOLDER]        (build/pictures); runs are kept there, and finished ones are not done again
#
# Environment:
#   RETORT    the program (build/retort)
#   CHROMIUM  a Chromium or Chrome that renders the pages (chromium)
#
# Needs jq. Look at the pictures before you commit them.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$(readlink -f "$0")")/.."
source=$PWD folder=${1:-build/pictures}
[[ $folder == /* || -z ${1:-} ]] || folder=$called_from/$folder
retort=$(readlink -f "${RETORT:-build/retort}") chromium=${CHROMIUM:-chromium}
mkdir -p "$folder"
cd "$folder"

# run NAME OPTIONS...: a finished run in runs/NAME.
run() {
  local out=runs/$1 resume=()
  shift
  [ ! -e "$out" ] || resume=(--resume)
  "$retort" run "$source/configs/quickstart.yaml" --out "$out" "${resume[@]}" "$@"
}
# shot PAGE WIDTH HEIGHT PICTURE OPTIONS...
shot() {
  local page=$PWD/$1 size=$2,$3 picture=$source/docs/images/$4
  shift 4
  "$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size="$size" --screenshot="$picture" "$@" \
    "file://$page" 2>/dev/null
}

run quickstart-0
run fixed-0 --set method.truncation=fixed
run dynamic-0 --set method.truncation=dynamic
"$retort" report runs/quickstart-0
"$retort" report runs/quickstart-0 runs/fixed-0 runs/dynamic-0 --out windows.html
shot runs/quickstart-0/report.html 1000 1250 report-light.png
shot runs/quickstart-0/report.html 500 1100 report-dark.png --force-dark-mode
shot windows.html 1000 1500 report-comparison.png

# What the quick start begins with, beside what it ends in.
accuracy() { jq -r ".accuracy.$1.mean | round" runs/quickstart-0/result.json; }
cat >quickstart.html <<HTML
<!DOCTYPE html>
<style>
  body { margin: 16px; background: white; color: #222; font: 19px sans-serif; display: flex; gap: 36px }
  figure { margin: 0 } figcaption { margin-top: 12px; width: 500px } b { font-size: 26px }
  img { height: 249px; display: block } .small { padding: 22px 0 23px; height: 204px; image-rendering: pixelated }
</style>
<figure><img class="small" src="runs/quickstart-0/previews/000000.png">
<figcaption><b>$(accuracy random) %</b> of the test images are recognised by a network that has seen ten random images such
as these</figcaption></figure>
<figure><img src="runs/quickstart-0/preview.png">
<figcaption><b>$(accuracy distilled) %</b> by one that has seen these ten instead, which Retort made of
60,000</figcaption></figure>
HTML
shot quickstart.html 1150 370 quickstart.png
ls -l "$source"/docs/images/*.png
