#!/usr/bin/env python3
"""What the compilers of real GPUs make of OpenCL kernels: registers, spills, local memory, waves in flight, and the hot
loop's machine code. No GPU is needed. A developer's tool; `./dev gpu-compile` installs the compilers.

    tests/gpu_compile.py --target acm-g10 --target gfx1030 FILE.cl
    tests/gpu_compile.py --target all -D V=1 -D NAME=k -D SIDE=16 ... cl/preamble.cl cl/product_gpu.cl

Files are compiled as one text, one after another. A line a kernel:

    lanes   of a wave (warp, sub-group): the compiler's choice on Intel
    regs    registers an item (AMD, NVIDIA), a thread of so many lanes (Intel)
    spill   bytes that did not fit: an item (AMD, NVIDIA), a thread (Intel)
    local   bytes of local memory a group
    waves   in flight on a SIMD (AMD), a multiprocessor (NVIDIA), an execution unit (Intel), of the most there can be
    mads    multiply-adds an item in the hot loop: the basic block that has most of them
    share   of the multiply-adds in the hot loop's vector instructions; a packed or dual one counts as one
    pairs   multiply-adds an instruction that has any: above 1 where they are packed or dual
    /read   multiply-adds a read from local memory in the hot loop, of one number or of four
"""
import argparse
import collections
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLC = pathlib.Path('/usr/lib/clc')

# --- targets: what limits the waves in flight ---
# AMD: lanes, registers of a SIMD and of an allocation, most waves, SIMDs and bytes of local memory that share groups.
# NVIDIA: lanes, registers of a multiprocessor, most warps and groups, local memory, what each group takes besides.
# Intel: bytes of a register, threads of a unit, units and bytes of local memory that share groups.
Amd = collections.namedtuple('Amd', 'lanes file granule cap simds local')
Nvidia = collections.namedtuple('Nvidia', 'cap groups local reserved')
Intel = collections.namedtuple('Intel', 'grf cap units local')
TARGETS = {
    'gfx906': Amd(64, 256, 4, 10, 4, 65536),
    'gfx90a': Amd(64, 512, 8, 8, 4, 65536),
    'gfx1030': Amd(32, 1024, 16, 16, 4, 131072),
    'gfx1100': Amd(32, 1536, 24, 16, 4, 131072),
    'sm_61': Nvidia(64, 32, 98304, 0),
    'sm_70': Nvidia(64, 32, 98304, 0),
    'sm_75': Nvidia(32, 16, 65536, 0),
    'sm_86': Nvidia(48, 16, 102400, 1024),
    'sm_90': Nvidia(64, 32, 233472, 1024),
    'tgllp': Intel(32, 7, 16, 131072),
    'acm-g10': Intel(32, 8, 16, 131072),
    'pvc': Intel(64, 8, 8, 131072),
}

UNSAID = 64  # items of a group whose kernel does not say how many

FIELDS = 'lanes items regs spill local waves cap mads share pairs read'
Figures = collections.namedtuple('Figures', FIELDS)


def round_up(number, step):
    return -(-number // step) * step


def hot_loop(blocks, count):
    """Figures of the block with most multiply-adds. `count` gives (multiply-adds an item, vector instructions that are
    multiply-adds, all vector instructions, reads from local memory) of a block's text."""
    mads, instructions, vectors, reads = max((count(block) for block in blocks), default=(0, 0, 0, 0))
    return dict(mads=round(mads), share=round(100 * instructions / vectors, 1) if mads else None,
                pairs=round(mads / instructions, 2) if mads else None, read=round(mads / reads, 1) if reads else None)


class CompileError(Exception):
    pass


def run(command, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors='replace', stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if re.search('error|fatal|crash|Stack dump', line, re.I)]
        raise CompileError('\n'.join(lines[:5] or done.stdout.splitlines()[-5:]) or f'status {done.returncode}')
    return done.stdout


def clang(tools, source, target, cpu, library, out):
    run([tools['clang-19'], '-x', 'cl', '-cl-std=CL1.2', '-target', target, *cpu, '-nogpulib', '-O3', '-w', '-Xclang',
         '-finclude-default-header', '-Xclang', '-mlink-builtin-bitcode', '-Xclang', CLC / library, '-S', source, '-o',
         out])


def group_items(tools, source):
    """Items a group by kernel name, of those whose text says so. Clang tells it to no compiler but AMD's and Intel's."""
    text = run([tools['clang-19'], '-E', '-P', '-x', 'cl', '-cl-std=CL1.2', '-w', source])
    sizes = {}
    for found in re.finditer(r'reqd_work_group_size\s*\(([^;{}]*?)\)\s*\)\s*\)[^;{}]*?\bvoid\s+(\w+)\s*\(', text):
        if re.fullmatch(r'[\d\s()+*/,-]+', found[1]):
            sizes[found[2]] = eval('[' + found[1].replace('/', '//') + ']')
    return sizes


# --- AMD: clang alone; the assembly says everything ---
AMD_MAD = re.compile(r'v_(?:dual_)?(pk_)?(?:fma|fmac|mad|mac|fmaak|fmamk)_f32')


def amd_count(block):
    mads = instructions = vectors = reads = 0
    for line in block.splitlines():
        word = line.strip()
        if word.startswith('v_'):
            found = AMD_MAD.findall(word)
            vectors += 1
            instructions += bool(found)
            mads += sum(2 if packed else 1 for packed in found)
        elif word.startswith('ds_read') or word.startswith('ds_load'):
            reads += 1
    return mads, instructions, vectors, reads


def compile_amd(tools, source, name, target, folder):
    assembly = folder / 'k.s'
    clang(tools, source, 'amdgcn-amd-amdhsa', [f'-mcpu={name}'], 'amdgcn--amdhsa.bc', assembly)
    text = assembly.read_text()
    groups = {}
    for entry in re.split(r'^  - (?=\.)', text[text.rfind('amdhsa.kernels:'):], flags=re.M)[1:]:
        sizes = re.search(r'\.reqd_workgroup_size:\s*- (\d+)\s*- (\d+)\s*- (\d+)', entry)
        groups[re.search(r'\.name:\s*(\S+)', entry)[1]] = math.prod(map(int, sizes.groups())) if sizes else UNSAID
    kernels = {}
    for match in re.finditer(r'^(\w+):\s*; @\1\n(.*?)^\.Lfunc_end', text, re.S | re.M):
        kernel, body = match.groups()
        if kernel not in groups:
            continue
        rest = text[match.end():match.end() + 8000]
        number = lambda key: int(re.search(rf'; {key}: (\d+)', rest)[1])
        regs = number('TotalNumVgprs' if '; TotalNumVgprs' in rest.split('; Occupancy')[0] else 'NumVgprs')
        local, items = number('LDSByteSize'), groups[kernel]
        waves = min(target.cap, target.file // round_up(max(regs, 1), target.granule))
        if local:
            waves = min(waves, target.local // local * math.ceil(items / target.lanes) // target.simds)
        blocks = re.split(r'^(?:\.LBB\w+:|; %bb\.\d+:)', body, flags=re.M)
        kernels[kernel] = Figures(lanes=target.lanes, items=items, regs=regs, spill=number('ScratchSize'), local=local,
                                  waves=waves, cap=target.cap, **hot_loop(blocks, amd_count))
    return kernels


# --- NVIDIA: clang to PTX, ptxas to machine code, nvdisasm to text ---
SASS = re.compile(r'/\*[0-9a-f]{4,}\*/\s*\{?\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)')
NOT_VECTOR = re.compile(r'U[A-Z]|LD|ST|RED|ATOM|MEMBAR|CCTL|ERRBAR|TEX|BAR|BRA|BRX|BSSY|BSYNC|BREAK|EXIT|NOP|WARPSYNC|'
                        r'DEPBAR|CALL|RET|SYNC|SSY|PBK|BRK|CONT|PCNT|YIELD|S2R|S2UR|R2UR|CS2R|JMP|VOTE|NANOSLEEP')


def nvidia_count(block):
    words = SASS.findall(block)
    mads = words.count('FFMA') + words.count('FFMA32I')
    return mads, mads, sum(not NOT_VECTOR.match(word) for word in words), words.count('LDS')


def compile_nvidia(tools, source, name, target, folder):
    ptx, cubin = folder / 'k.ptx', folder / 'k.cubin'
    cpu = 'sm_60' if name in ('sm_61', 'sm_70') else 'sm_75' if name == 'sm_75' else 'sm_80'
    clang(tools, source, 'nvptx64-unknown-nvidiacl', ['-Xclang', '-target-cpu', '-Xclang', cpu],
          'nvptx64--nvidiacl.bc', ptx)
    sizes = group_items(tools, source)
    entry = lambda found: found[0] + (f'\n.reqntid {", ".join(map(str, sizes[found[1]]))}' if found[1] in sizes else '')
    ptx.write_text(re.sub(r'\.entry (\w+)\([^)]*\)', entry, ptx.read_text()))
    said = run([tools['ptxas'], '-v', '-O3', f'-arch={name}', ptx, '-o', cubin])
    code = run([tools['nvdisasm'], '-c', cubin])
    bodies = dict(re.findall(r'^\.text\.(\w+):\n(.*?)(?=^//-----|\Z)', code, re.S | re.M))
    kernels = {}
    for match in re.finditer(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry function|\Z)", said, re.S):
        kernel, words = match.groups()
        number = lambda pattern: int(found[1]) if (found := re.search(pattern, words)) else 0
        items = math.prod(sizes.get(kernel, [UNSAID]))
        regs, local = number(r'Used (\d+) registers'), number(r'(\d+) bytes smem')
        warps = math.ceil(items / 32)
        groups = min(target.cap // warps, target.groups, 65536 // (round_up(max(regs, 1), 8) * 32 * warps))
        if local:
            groups = min(groups, target.local // (local + target.reserved))
        # A branch ends a block as a label does.
        blocks = re.split(r'^\.L_x_\w+:|(?<=\n)(?=.*\b(?:BRA|EXIT|SYNC|BRK)\b)', bodies.get(kernel, ''), flags=re.M)
        spill = max(number(r'(\d+) bytes stack frame'), number(r'(\d+) bytes spill stores'))
        kernels[kernel] = Figures(lanes=32, items=items, regs=regs, spill=spill, local=local, waves=groups * warps,
                                  cap=target.cap, **hot_loop(blocks, nvidia_count))
    return kernels


# --- Intel: ocloc; an ELF file says what each kernel needs, a dump of its compiler holds the machine code ---
INTEL = re.compile(r'\s*(?:\([^()]*\)\s+)?([a-z]\w*)(?:\.\S+)?\s+\((\d+)\|M\d+\)(.*)')
INTEL_OTHER = {'send', 'sends', 'sendc', 'load', 'store', 'sync', 'goto', 'join', 'while', 'if', 'else', 'endif', 'break',
               'jmpi', 'brd', 'brc', 'nop', 'call', 'ret', 'cont', 'halt'}


def intel_count(lanes, block):
    """Instructions are weighed by the lanes they compute for: a thread's are cut in several where it is wide."""
    mads = vectors = reads = 0
    for line in block.splitlines():
        found = INTEL.match(line)
        if not found:
            continue
        word, width, rest = found[1], int(found[2]), found[3]
        if word in INTEL_OTHER:
            legacy = re.search(r'0x[0-9A-F]+FE\b', rest) and ' read' in rest
            if (word == 'load' and '.slm.' in line) or legacy:
                reads += min(width / lanes, 1) if width > 1 else 1
        elif width > 1:
            vectors += width / lanes
            if word in ('mad', 'mac') and ':f' in rest:
                mads += width / lanes
    return mads, mads, vectors, reads


def elf_section(data, wanted):
    table, = struct.unpack_from('<Q', data, 0x28)
    size, count, names = struct.unpack_from('<HHH', data, 0x3a)
    sections = [struct.unpack_from('<IIQQQQ', data, table + i * size) for i in range(count)]
    for name, _, _, _, offset, length in sections:
        at = sections[names][4] + name
        if data[at:data.index(b'\0', at)].decode() == wanted:
            return data[offset:offset + length].decode()
    raise CompileError(f'no {wanted} in what ocloc wrote')


def compile_intel(tools, source, name, target, folder):
    dump, out = folder / 'dump', folder / 'out'
    dump.mkdir()
    environment = dict(os.environ, IGC_ShaderDumpEnable='1', IGC_DumpToCustomDir=str(dump))
    run([tools['ocloc'], 'compile', '-file', source, '-device', name, '-options', '-cl-std=CL1.2', '-internal_options',
         '-cl-intel-allow-zebin', '-output', out, '-output_no_suffix', '-q'], env=environment, cwd=folder)
    code = {}  # by kernel and width; the compiler's last try counts
    for path in sorted(dump.glob('*_simd*_entry_*.asm'), key=lambda path: path.stat().st_mtime_ns):
        text = path.read_text()
        code[re.match(r'//\.kernel (\w+)', text)[1], int(re.search(r'_simd(\d+)_', path.name)[1])] = text
    kernels = {}
    section = re.search(r'^kernels:\n(.*?)(?=^\S|\Z)', elf_section(out.read_bytes(), '.ze_info'), re.S | re.M)
    for entry in ('\n' + section[1]).split('\n  - name:')[1:]:
        kernel = entry.split()[0].strip("'\"")
        number = lambda key: int(found[1]) if (found := re.search(rf'\n\s+{key}:\s+(\d+)', entry)) else 0
        sizes = re.search(r'required_work_group_size: \[ (\d+), (\d+), (\d+) \]', entry)
        items = math.prod(map(int, sizes.groups())) if sizes else UNSAID
        lanes, regs, local = number('simd_size'), number('grf_count'), number('slm_size')
        text = code.get((kernel, lanes), '')
        found = re.search(r'//\.spill size (\d+)', text)
        spill = max(int(found[1]) if found else 0, number('spill_size'))
        threads = math.ceil(items / lanes)
        cap = target.cap if regs <= 128 else target.cap // 2
        groups = cap * target.units // threads
        if local:
            groups = min(groups, target.local // local)
        blocks = re.split(r'^// B\d+:', text, flags=re.M)
        kernels[kernel] = Figures(lanes=lanes, items=items, regs=regs, spill=spill, local=local,
                                  waves=round(groups * threads / target.units, 1), cap=target.cap,
                                  **hot_loop(blocks, lambda block: intel_count(lanes, block)))
    return kernels


FAMILIES = {
    Amd: (compile_amd, ['clang-19', 'amdgcn--amdhsa.bc']),
    Nvidia: (compile_nvidia, ['clang-19', 'nvptx64--nvidiacl.bc', 'ptxas', 'nvdisasm']),
    Intel: (compile_intel, ['ocloc']),
}


def find_tools(folder):
    """Paths by name, those in the folder before those of the system; None where one is missing."""
    tools = {}
    for name in {tool for _, needed in FAMILIES.values() for tool in needed}:
        inside = [path for path in sorted(folder.rglob(name)) if os.access(path, os.X_OK) and path.is_file()]
        there = CLC / name if (CLC / name).exists() else None
        tools[name] = inside[0] if inside else there or shutil.which(name)
    return tools


def missing(tools, target):
    return [name for name in FAMILIES[type(TARGETS[target])][1] if not tools[name]]


def compile_text(tools, text, target):
    """Figures by kernel name."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        source = folder / 'k.cl'
        source.write_text(text)
        return FAMILIES[type(TARGETS[target])][0](tools, source, target, TARGETS[target], folder)


# --- printing ---
def show(value, form='{}'):
    return '-' if value is None else form.format(value)


HEADER = f"{'lanes':>5} {'regs':>4} {'spill':>6} {'local':>6} {'waves':>7} {'mads':>5} {'share':>6} {'pairs':>5} {'/read':>5}"


def line(f):
    return (f'{f.lanes:5} {f.regs:4} {f.spill:6} {f.local:6} {f"{f.waves:g}/{f.cap}":>7} {f.mads:5} '
            f'{show(f.share, "{:.1f}"):>6} {show(f.pairs, "{:.2f}"):>5} {show(f.read, "{:.1f}"):>5}')


def compile_files(tools, targets, files, defines):
    text = ''.join('#define {} {}\n'.format(*(word.split('=', 1) + ['1'])[:2]) for word in defines)
    text += '\n'.join(pathlib.Path(file).read_text() for file in files)
    failed = 0
    print(f"{'target':8} {HEADER}  kernel")
    for target in targets:
        try:
            for kernel, figures in compile_text(tools, text, target).items():
                print(f'{target:8} {line(figures)}  {kernel}')
        except CompileError as error:
            failed += 1
            print(f'{target:8} does not compile: {error}')
    return failed > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+', metavar='FILE', help='texts to compile as one')
    parser.add_argument('--target', action='append', help=f'all, or some of: {" ".join(TARGETS)}')
    parser.add_argument('-D', dest='defines', action='append', default=[], metavar='NAME=VALUE')
    parser.add_argument('--tools', type=pathlib.Path, default=ROOT / 'build' / 'gpu_compile' / 'tools',
                        help='a folder to look for compilers in, before the system (%(default)s)')
    options = parser.parse_args()
    targets = options.target or ['all']
    if targets == ['all']:
        targets = list(TARGETS)
    unknown = [target for target in targets if target not in TARGETS]
    if unknown:
        parser.error(f'unknown target {unknown[0]}: all, or some of {" ".join(TARGETS)}')
    tools = find_tools(options.tools)
    for target in list(targets):
        absent = missing(tools, target)
        if absent:
            print(f'{target}: skipped, no {", ".join(absent)}', file=sys.stderr)
            targets.remove(target)
    return compile_files(tools, targets, options.files, options.defines)


if __name__ == '__main__':
    sys.exit(main())
