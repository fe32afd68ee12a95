# What tests that are shell scripts print, in the Test Anything Protocol. Sourced by them; needs bash.
number=0 failed=0
report() { # words, complaint (empty: passed)
  number=$((number + 1))
  if [ -z "$2" ]; then
    echo "ok $number - $1"
  else
    echo "not ok $number - $1"
    sed 's/^/# /' <<<"$2"
    failed=1
  fi
}
skip() { number=$((number + 1)); echo "ok $number # SKIP $1"; }
