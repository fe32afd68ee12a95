#!/usr/bin/env bash
# What `meson install` leaves, as a program of somebody else's finds it: installs into a temporary prefix, compiles the
# example against it by pkg-config and runs it. And the reference of its headers. Prints TAP.
set -uo pipefail
source=${RETORT_SOURCE:?the source tree}
build=${RETORT_BUILD:?the build folder}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset RETORT_DEVICE
compiler=(cc)
[ "${RETORT_SANITIZE:-none}" = none ] || compiler+=("-fsanitize=$RETORT_SANITIZE")

. "$source/tests/tap.sh"
# try NAME COMMAND...: it ends well.
try() {
  local name=$1
  shift
  if "$@" >log 2>&1; then report "$name" ""; else report "$name" "$* ended badly: $(tail -n 20 log)"; fi
}

try "install" meson install -C "$build" --no-rebuild --destdir "$work/root"
pc=$(find root -name retort.pc)
prefix=$work/root$(sed -n 's/^prefix=//p' "$pc")
export PKG_CONFIG_PATH=$work/$(dirname "$pc")
flags() { pkg-config --define-variable=prefix="$prefix" "$@" retort; }
read -ra compile < <(flags --cflags)
read -ra link < <(flags --libs)
folder=$(flags --variable=libdir)

for file in share/bash-completion/completions/retort share/zsh/site-functions/_retort \
  share/fish/vendor_completions.d/retort.fish share/man/man1/retort-run.1 share/man/man5/retort-descriptor.5; do
  report "$file" "$([ -s "$prefix/$file" ] || echo "is not there")"
done
try "the program runs from there" "$prefix/bin/retort" --version
report "no header of the inside" "$(find root -name '*.map' -o -path '*/include/*' ! -path '*/include/retort*')"
report "exports retort_* alone" "$(nm -D --defined-only "$folder/libretort.so" | awk '$3 !~ /^retort_/')"
soname=$(readelf -d "$folder/libretort.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
report "its soname is there" "$([ "$soname" = libretort.so.0 ] && [ -e "$folder/$soname" ] || echo "found '$soname'")"
report "the version is the library's" \
  "$([ "retort $(pkg-config --modversion retort)" = "$("$prefix/bin/retort" --version)" ] || echo "it is not")"

for language in c c++; do
  # A compiler of that language is not wanted to build Retort; cc may be without it.
  : | cc -x "$language" -fsyntax-only - 2>log || { skip "headers as $language: no compiler"; continue; }
  complaints=
  for header in "$prefix"/include/retort/*.h; do
    cc -x "$language" -Wall -Wextra -Wpedantic -Werror -fsyntax-only "${compile[@]}" "$header" 2>log ||
      complaints+="$header: $(head -n 5 log)"$'\n'
  done
  report "every header by itself, as $language" "${complaints%$'\n'}"
done

try "the example compiles" "${compiler[@]}" -Wall -Wextra -Werror -o distil "$source/examples/distil.c" \
  "${compile[@]}" "${link[@]}"
LD_LIBRARY_PATH=$folder timeout 900 ./distil >out 2>err
report "the example runs" "$([ $? = 0 ] && [ ! -s err ] || head -n 20 err)"
report "it distils and evaluates" "$(grep -Eq '^accuracy [0-9.]+ %, of random images [0-9.]+ %$' out || tail -n 5 out)"
LD_LIBRARY_PATH=$folder timeout 900 ./distil | tee again >/dev/null
report "again, it goes on with what is finished" \
  "$([ "$(grep -c '^step' again)" = 0 ] && diff <(grep accuracy out) <(grep accuracy again))"

if command -v doxygen >/dev/null; then
  try "the reference, without a warning" "$source/tests/docs.sh" "$work/docs"
else
  skip "the reference: needs doxygen (./dev docs)"
fi
echo "1..$number"
exit $failed
