#!/bin/sh
# Writes a C file that holds each kernel template as a string: embed.sh OUTPUT INPUT...
set -eu
out=$1
shift
{
    echo '#include "compile/plan.h"'
    echo '#include <string.h>'
    echo 'static const struct { const char *name, *text; } texts[] = {'
    for file; do
        printf '{"%s",\n' "${file##*/}"
        sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$file"
        echo '},'
    done
    echo '};'
    echo 'const char *kernels_text(const char *file) {'
    echo '    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)'
    echo '        if (strcmp(texts[i].name, file) == 0) return texts[i].text;'
    echo '    return NULL;'
    echo '}'
} > "$out"
