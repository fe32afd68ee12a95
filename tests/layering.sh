#!/usr/bin/env bash
# Checks that each module under host/ includes only what docs/architecture.md lets it: its own headers, those of the
# modules it rests on, directly or through them, and those of include/retort/. Prints TAP, a case a module.
set -euo pipefail
cd "${RETORT_SOURCE:-$(dirname "$0")/..}"

declare -A rests
modules=()
# | module | what it holds | what it rests on |
while IFS='|' read -r _ module _ below _; do
  module=$(tr -d ' `' <<<"$module")
  [ -d "host/$module" ] && [ -n "$module" ] || continue
  modules+=("$module")
  rests[$module]=$(tr -c 'a-z\n' ' ' <<<"$below")
done < <(sed -n '/^## Floors/,/^## /p' docs/architecture.md | grep '^| [a-z]' | grep -v '^| folder')

# Prints a module and all below it.
reach() {
  local seen=" " stack=("$1") top below
  while [ ${#stack[@]} -gt 0 ]; do
    top=${stack[-1]}
    unset 'stack[-1]'
    [[ $seen == *" $top "* ]] && continue
    [ -n "${rests[$top]+known}" ] || continue
    seen+="$top "
    for below in ${rests[$top]}; do stack+=("$below"); done
  done
  echo "$seen"
}

echo "1..$((${#modules[@]} + 2))"
. tests/tap.sh

complaints=
for folder in host/*/; do
  module=$(basename "$folder")
  [ -n "${rests[$module]+known}" ] || complaints+="docs/architecture.md does not tell what $module rests on"$'\n'
done
[ ${#modules[@]} -ge 10 ] || complaints+="the table of docs/architecture.md could not be read"$'\n'
report "every module is in the table" "${complaints%$'\n'}"

for module in "${modules[@]}"; do
  allowed=$(reach "$module")
  complaints=
  while IFS=: read -r file line target; do
    [ -n "$file" ] || continue
    target=${target#*\"}
    target=${target%%\"*}
    owner=${target%%/*}
    case $target in
    retort/*) continue ;;
    */*) [[ $allowed == *" $owner "* ]] || complaints+="$file:$line: $module may not include $target"$'\n' ;;
    *) complaints+="$file:$line: write \"$module/$target\""$'\n' ;;
    esac
  done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "host/$module" --include='*.[ch]' || true)
  report "$module rests on nothing it should not" "${complaints%$'\n'}"
done

complaints=$(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' include --include='*.h' | grep -v '"retort/' || true)
report "public headers include public headers only" "$complaints"
exit $failed
