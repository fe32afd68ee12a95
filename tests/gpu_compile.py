#!/usr/bin/env python3
"""What the compilers of real GPUs make of our kernels: registers, spills, local memory, waves in flight, and the hot
loop's machine code. No GPU is needed. A developer's tool; `./dev gpu-compile` installs the compilers.

    tests/gpu_compile.py                          checks the kernels of four models, for twelve GPUs, against a table
    tests/gpu_compile.py --target pvc --update    writes what was found into the table
    tests/gpu_compile.py --target acm-g10 --target gfx1030 FILE.cl
    tests/gpu_compile.py -D V=1 -D NAME=k -D SIDE=16 ... cl/preamble.cl cl/product_gpu.cl

Files are compiled as one text, one after another, and a line a kernel is printed:

    lanes   of a wave (warp, sub-group): the compiler's choice on Intel
    items   of a work-group
    regs    registers an item (AMD, NVIDIA), or a thread of so many lanes (Intel)
    spill   bytes that did not fit: an item (AMD, NVIDIA), a thread (Intel)
    local   bytes of local memory a group
    waves   in flight on a SIMD (AMD), a multiprocessor (NVIDIA), an execution unit (Intel), of the most there can be
    mads    multiply-adds an item in the hot loop, that is, the basic block that has most of them
    hot     share of the multiply-adds in its vector instructions, in percent; a packed or dual one counts as one
    loop    the same in the outermost loop round it, as the instructions stand there
    pairs   multiply-adds an instruction that has any: above 1 where they are packed or dual
    /read   multiply-adds a read from local memory in the hot loop, of one number or of four

Without files, kernels of one kind (a product's pass and tile, rows by their size, ...) share a line of the table: the
worst registers, spill, local memory and waves among them, and of the largest product what its loop is made of. A kind
is named by what it computes, so that the numbers of kernels do not matter. The check of a line fails on spills in a
product, on more than 32 KB of local memory, on a share of multiply-adds in the loop of a product that is more than 2
points below the table's, and where a kernel does not compile.
"""
import argparse
import ast
import collections
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True

import gpu_compilers
from gpu_compilers import TARGETS, CompileError, Figures

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = pathlib.Path(__file__).with_suffix('.txt')
WORK = ROOT / 'build' / 'gpu_compile'
MOST_LOCAL = 32768
SHARE_POINTS = 2
AT_ONCE = 16  # kernels compiled together: starting a compiler costs as much as some kernels do

# The models: width 128 on 32 x 32 and the quick start's, at 1 and 10 images a class.
MODELS = [[*size, '--ipc', ipc] for size in (['--image', '3,32,32', '--width', '128'],
                                             ['--image', '1,28,28', '--width', '32']) for ipc in ('1', '10')]


# --- figures as text ---
def show(value, form='{}'):
    return '-' if value is None else form.format(value)


def columns(f):
    return [f.lanes, f.items, f.regs, f.spill, f.local, f'{f.waves:g}/{f.cap}', show(f.mads),
            show(f.hot, '{:.1f}'), show(f.loop, '{:.1f}'), show(f.pairs, '{:.2f}'), show(f.read, '{:.1f}')]


COLUMNS = 'lanes items regs spill local waves mads hot loop pairs /read'.split()
LINE = '{:8} {:>5} {:>5} {:>4} {:>6} {:>6} {:>7} {:>5} {:>5} {:>5} {:>5} {:>5}  {}'
HEADER = LINE.format('target', *COLUMNS, '')


def compile_files(tools, targets, files, defines):
    text = ''.join('#define {} {}\n'.format(*(word.split('=', 1) + ['1'])[:2]) for word in defines)
    text += '\n'.join(pathlib.Path(file).read_text() for file in files)
    failed = 0
    print(HEADER + 'kernel')
    for target in targets:
        try:
            for kernel, figures in gpu_compilers.compile_text(tools, text, target).items():
                print(LINE.format(target, *columns(figures), kernel))
        except CompileError as error:
            failed += 1
            print(f'{target:8} does not compile: {error}')
    return failed > 0


# --- the kernels of the models ---
PASSES = 'MATMUL', 'FORWARD', 'BACKWARD_DATA', 'BACKWARD_WEIGHT'
Kernel = collections.namedtuple('Kernel', 'kind text size')  # size: multiply-adds of a product, else work-items


def largest_product(text):
    """The parameters of a product, of several in one kernel the one with most multiply-adds; and how many those are."""
    best, most = None, 0
    for function in re.split(r'^#define NAME ', text, flags=re.M):
        numbers = {key: int(value) for key, value in re.findall(r'^#define (\w+) (\d+)$', function, re.M)}
        size = numbers.get('M', 0) * numbers.get('N', 0) * numbers.get('K', 0)
        if numbers.get('FORWARD') or numbers.get('BACKWARD_DATA'):
            size *= numbers.get('TAPS', 1)
        size *= numbers.get('BATCH', 1) * max(numbers.get('SHEETS', 1), 1)
        size *= numbers.get('TERMS_0', 1) + numbers.get('TERMS_1', 0)
        if 'WORK_M' in numbers and size > most:
            best, most = numbers, size
    return best, most


def describe(what, text, items):
    """A kernel with a name for its kind that stays when kernels are numbered anew or batches change; `what` is the
    launch list's word."""
    if what.startswith('product'):
        numbers, size = largest_product(text)
        name = next((word for word in PASSES if numbers.get(word)), 'plain').lower().replace('_', ' ')
        work = [numbers['WORK_M'], numbers['WORK_N']]
        tile = [numbers.get('TILE_' + side, numbers.get('SIDE', 0) * sums) for side, sums in zip('MN', work)]
        elsewhere = ''.join(side for side in 'AB' if numbers.get('LOCAL_' + side) == 0)
        kind = f'product {name} {tile[0]}x{tile[1]} of {work[0]}x{work[1]}'
        kind += f' {elsewhere} global' if elsewhere else ''
        kind += ' joined' if numbers.get('TERMS_0', 1) + numbers.get('TERMS_1', 0) > 1 else ''
        return Kernel(kind, text, size)
    rows = re.fullmatch(r'fused \d+ of \[(.*)\]', what)
    if rows:
        sizes = rows[1].split(',')
        kind = 'rows of ' + ('x'.join(sizes[2:]) if len(sizes) == 4 else sizes[-1] if len(sizes) > 1 else 'a vector')
    else:
        kind = re.sub(r'\.cl$| \d+$', '', what)
    return Kernel(kind, text, items)


def kernels_of(program, target, model):
    """Preamble, and the kernels that the device would get."""
    folder = WORK / 'texts' / target / '-'.join(word.strip('-') for word in model)
    subprocess.run([program, 'kernels', '--as', target, '--family', 'gpu', *model, '--out', folder], check=True,
                   stdout=subprocess.DEVNULL)
    launches = {number: (what, math.prod(map(int, sizes))) for number, what, *sizes in re.findall(
        r'^ *\d+  k(\d+) +(.*?) +(\d+) x (\d+) x (\d+) / ', (folder / 'launches.txt').read_text(), re.M)}
    preamble, *parts = (folder / 'program.cl').read_text().split('#define KERNEL ')
    kernels = []
    for part in parts:
        name, text = part.split('\n', 1)
        what, items = launches[re.match(r'k(\d+)', name)[1]]
        kernels.append(describe(what, text, items))
    return preamble, kernels


class Cache:
    """Figures of kernels compiled before, by hash of text, target and compilers."""

    def __init__(self, tools):
        self.salt = ast.dump(ast.parse(pathlib.Path(gpu_compilers.__file__).read_text()))
        for tool in sorted(tools):
            path = tools[tool] and pathlib.Path(tools[tool]).resolve()
            self.salt += f'{path} {path.stat().st_size if path else 0}\n'

    def name(self, target, preamble, text):
        return 'k' + hashlib.sha256('\0'.join([self.salt, target, preamble, text]).encode()).hexdigest()[:24]

    def path(self, target, name):
        return WORK / 'cache' / target / name

    def load(self, target, name):
        try:
            return json.loads(self.path(target, name).read_text())
        except OSError:
            return None

    def store(self, target, name, figures):
        path = self.path(target, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix('.new').write_text(json.dumps(figures))
        path.with_suffix('.new').replace(path)


def compile_kernels(tools, target, preamble, named):
    """Figures, or the words of a failure, by name. A compiler that fails on several is asked for each alone."""
    text = preamble + ''.join(f'#define KERNEL {name}\n{text}' for name, text in named)
    try:
        found = gpu_compilers.compile_text(tools, text, target)
        return {name: found[name]._asdict() if name in found else 'nothing came of it' for name, _ in named}
    except CompileError as error:
        if len(named) == 1:
            return {named[0][0]: str(error)}
    results = {}
    for one in named:
        results.update(compile_kernels(tools, target, preamble, [one]))
    return results


def figures_of(tools, program, targets):
    """{target: {kind: [figures or words of a failure, the largest kernel's last]}} of all models."""
    cache = Cache(tools)
    kernels, figures, missing = {}, {}, collections.defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = [(target, model) for target in targets for model in MODELS]
        for (target, _), (preamble, some) in zip(wanted, pool.map(lambda one: kernels_of(program, *one), wanted)):
            for kernel in some:
                key = target, cache.name(target, preamble, kernel.text)
                if key in kernels:
                    continue
                kernels[key], figures[key] = kernel, cache.load(*key)
                if figures[key] is None:
                    missing[target, preamble].append((key[1], kernel.text))
        jobs = [(target, preamble, named[i:i + AT_ONCE]) for (target, preamble), named in missing.items()
                for i in range(0, len(named), AT_ONCE)]
        if jobs:
            print(f'compiling {sum(len(job[2]) for job in jobs)} kernels', file=sys.stderr)
        for (target, *_), results in zip(jobs, pool.map(lambda job: compile_kernels(tools, *job), jobs)):
            for name, found in results.items():
                figures[target, name] = found
                if not isinstance(found, str):  # what failed may have failed for want of memory
                    cache.store(target, name, found)
    kinds = collections.defaultdict(lambda: collections.defaultdict(list))
    for (target, name), kernel in sorted(kernels.items(), key=lambda item: item[1].size):
        kinds[target][kernel.kind].append(figures[target, name])
    return kinds


# --- the table ---
def summary(kind, figures):
    """One line for all kernels of a kind. Only products are made of multiply-adds."""
    loop = ('mads', 'hot', 'loop', 'pairs', 'read')
    return Figures(**{key: max(f[key] for f in figures) for key in ('items', 'regs', 'spill', 'local', 'cap')},
                   **{key: min(f[key] for f in figures) for key in ('lanes', 'waves')},
                   **{key: figures[-1][key] if kind.startswith('product') else None for key in loop})


def read_table():
    """{(target, kind): columns}"""
    table = {}
    if TABLE.exists():
        for line in TABLE.read_text().splitlines():
            words = line.split(None, 12)
            if len(words) == 13 and words[0] in TARGETS:
                table[words[0], words[12]] = words[1:12]
    return table


def write_table(table):
    lines = ['What compilers for GPUs make of the kernels: a line a target and kind of kernel. The columns, and which',
             'kernels, are told by tests/gpu_compile.py --help. Written by `./dev gpu-compile --update`.', '',
             HEADER + 'kind']
    for target in TARGETS:
        kinds = sorted(kind for one, kind in table if one == target)
        lines += [LINE.format(target, *table[target, kind], kind) for kind in kinds] + ([''] if kinds else [])
    TABLE.write_text('\n'.join(lines).rstrip() + '\n')


def complaints(kind, figures, stored):
    """What is wrong with a line."""
    words = [f'does not compile: {one}' for one in figures if isinstance(one, str)]
    figures = [one for one in figures if not isinstance(one, str)]
    if not figures:
        return words
    found = summary(kind, figures)
    if found.local > MOST_LOCAL:
        words.append(f'{found.local} bytes of local memory, {MOST_LOCAL} at most')
    if kind.startswith('product'):
        if found.spill:
            spilling = sum(one['spill'] > 0 for one in figures)
            words.append(f'{found.spill} bytes spilled, by {spilling} of {len(figures)} kernels')
        before = stored and stored[COLUMNS.index('loop')]
        if before and before != '-' and (found.loop or 0) < float(before) - SHARE_POINTS:
            words.append(f'{show(found.loop)} % multiply-adds in the loop, {before} % in the table')
    return words


def check(tools, program, targets, update):
    stored, passed, failed = read_table(), 0, 0
    found = figures_of(tools, program, targets)
    table = {key: line for key, line in stored.items() if key[0] not in targets}
    for target in targets:
        changed = []
        for kind in sorted(found[target]):
            figures, before = found[target][kind], stored.get((target, kind))
            wrong = complaints(kind, figures, None if update else before)
            failed += bool(wrong)
            passed += not wrong
            for words in wrong:
                print(f'FAILED {target}, {kind}: {words}')
            figures = [one for one in figures if not isinstance(one, str)]
            if not figures:
                continue
            table[target, kind] = list(map(str, columns(summary(kind, figures))))
            if before != table[target, kind]:
                changed.append(kind)
        gone = [kind for one, kind in stored if one == target and kind not in found[target]]
        kernels = sum(map(len, found[target].values()))
        words = f'{target}: {kernels} kernels of {len(found[target])} kinds'
        if not update:
            words += ''.join(f'; {what}: {", ".join(kinds)}' for what, kinds in
                             (('not as in the table', changed), ('in the table only', gone)) if kinds)
        print(words)
    if update:
        write_table(table)
        print(f'{TABLE} written')
    print(f'{passed} passed, {failed} failed')
    return failed > 0 or not passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', metavar='FILE', help='texts to compile as one')
    parser.add_argument('--target', action='append', help=f'one of {" ".join(TARGETS)}; may be repeated (all)')
    parser.add_argument('-D', dest='defines', action='append', default=[], metavar='NAME=VALUE', help='for the files')
    parser.add_argument('--update', action='store_true', help='write the table, instead of comparing with it')
    parser.add_argument('--program', type=pathlib.Path, default=ROOT / 'build' / 'retort', help='(%(default)s)')
    parser.add_argument('--tools', type=pathlib.Path, default=WORK / 'tools',
                        help='a folder to look for compilers in, before the system (%(default)s)')
    options = parser.parse_args()
    targets = list(dict.fromkeys(options.target or TARGETS))
    unknown = [target for target in targets if target not in TARGETS]
    if unknown:
        parser.error(f'unknown target {unknown[0]}: one of {" ".join(TARGETS)}')
    tools = gpu_compilers.find_tools(options.tools)
    absent = {target: gpu_compilers.missing(tools, target) for target in targets}
    for target in targets:
        if absent[target]:
            print(f'{target}: skipped, no {", ".join(absent[target])}', file=sys.stderr)
    targets = [target for target in targets if not absent[target]]
    if options.files:
        return compile_files(tools, targets, options.files, options.defines)
    if not options.program.exists():
        parser.error(f'{options.program} is not there: ./dev build makes it')
    return check(tools, options.program, targets, options.update)


if __name__ == '__main__':
    sys.exit(main())
