# What scripts share that time Retort beside PyTorch: sourced by them, in the project's root. Sets PYTHON, and what
# PyTorch finds in its environment.
# shellcheck shell=bash

die() { echo "$(basename "$0" .sh): $*" >&2; exit 1; }

# begin_pytorch PROGRAM MODULE...: sees to jq, to Retort's program, and to a Python with these modules; without PYTHON
# one is made in build/pytorch.
begin_pytorch() {
  local retort=$1 modules
  shift
  modules=$(IFS=,; echo "$*")
  command -v jq >/dev/null || die "needs jq (apt-get install jq)"
  [ -x "$retort" ] || die "$retort is not there; build it with ./dev build, or name it in RETORT"
  if [ -z "${PYTHON:-}" ]; then
    PYTHON=build/pytorch/bin/python
    if ! "$PYTHON" -c "import $modules" 2>/dev/null; then
      echo "installing PyTorch in build/pytorch" >&2
      python3 -m venv build/pytorch
      "$PYTHON" -m pip install --quiet "$@"
    fi
  fi
  "$PYTHON" -c "import $modules" || die "$PYTHON has not all of $*"
  # What torch.compile has built is found again at the next turn.
  export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$PWD/build/pytorch/cache}
  # PyTorch's threads spin at their barriers, which costs it dearly where anything else wants a processor. Spinning for
  # a shorter time takes nothing from it on an idle machine.
  export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000}
}
