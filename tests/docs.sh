#!/usr/bin/env bash
# Builds the reference of include/retort/ into a folder; fails, with Doxygen's words, where something is not documented.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
mkdir -p "$1"
RETORT_VERSION=$(sed -n "s/^  version: '\(.*\)',/\1/p" meson.build) RETORT_DOCS=$1 doxygen docs/Doxyfile
