"""The compilers of real GPUs, as functions from a text to figures by kernel: clang with libclc for AMD; the same, ptxas
and nvdisasm for NVIDIA; ocloc for Intel. gpu_compile.py says what the figures are."""
import collections
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

CLC = pathlib.Path('/usr/lib/clc')

# --- targets: what limits the waves in flight ---
# AMD: lanes, registers of a SIMD and of an allocation, most waves, SIMDs and bytes of local memory that share groups.
# NVIDIA: lanes, registers of a multiprocessor, most warps and groups, local memory, what each group takes besides.
# Intel: threads of a unit, units and bytes of local memory that share groups.
Amd = collections.namedtuple('Amd', 'lanes file granule cap simds local')
Nvidia = collections.namedtuple('Nvidia', 'cap groups local reserved')
Intel = collections.namedtuple('Intel', 'cap units local')
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
    'tgllp': Intel(7, 16, 131072),
    'acm-g10': Intel(8, 16, 131072),
    'pvc': Intel(8, 8, 131072),
}

UNSAID = 64  # items of a group whose kernel does not say how many

FIELDS = 'lanes items regs spill local waves cap mads hot loop pairs read'
Figures = collections.namedtuple('Figures', FIELDS)


def round_up(number, step):
    return -(-number // step) * step


def hot_loop(code, block, label, branch, count):
    """Figures of the block with most multiply-adds, and of the outermost loop round it. Patterns say after what a block
    begins, what a label is and which label a branch goes to; `count` gives (multiply-adds an item, vector instructions
    that are multiply-adds, all vector instructions, reads from local memory) of a piece of code."""
    edges = [0, *(found.end() for found in re.finditer(block, code, re.M)), len(code)]
    (mads, instructions, vectors, reads), begin, end = max((count(code[i:k]), i, k) for i, k in zip(edges, edges[1:]))
    labels = {found[1]: found.start() for found in re.finditer(label, code, re.M)}
    backward = [(labels[found[1]], found.end()) for found in re.finditer(branch, code, re.M)
                if labels.get(found[1], len(code)) <= found.start()]
    around = [(i, k) for i, k in backward if i < end and begin < k] or [(0, len(code))]
    _, in_loop, all_in_loop, _ = count(code[min(i for i, _ in around):max(k for _, k in around)])
    return dict(mads=round(mads), hot=round(100 * instructions / vectors, 1) if mads else None,
                loop=round(100 * in_loop / all_in_loop, 1) if mads else None,
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
    """Sizes of a group by kernel name, of those whose text says so, which clang does not hand on to ptxas."""
    text = run([tools['clang-19'], '-E', '-P', '-x', 'cl', '-cl-std=CL1.2', '-w', source])
    sizes = {}
    for found in re.finditer(r'reqd_work_group_size\s*\(([^;{}]*?)\)\s*\)\s*\)[^;{}]*?\bvoid\s+(\w+)\s*\(', text):
        if re.fullmatch(r'[\d\s()+*/,-]+', found[1]):
            sizes[found[2]] = eval('[' + found[1].replace('/', '//') + ']')
    return sizes


# --- AMD: clang alone; the assembly says everything ---
AMD_CODE = r'^(?=\.LBB\w+:|; %bb\.\d+:)', r'^(\.LBB\w+):', r'\bs_c?branch\w*\s+(\.LBB\w+)'
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
        kernels[kernel] = Figures(lanes=target.lanes, items=items, regs=regs, spill=number('ScratchSize'), local=local,
                                  waves=waves, cap=target.cap, **hot_loop(body, *AMD_CODE, amd_count))
    return kernels


# --- NVIDIA: clang to PTX, ptxas to machine code, nvdisasm to text ---
# After a branch a block begins as after a label.
SASS_CODE = r'^(?=\.L_x_\w+:)|^.*\b(?:BRA|EXIT|SYNC|BRK)\b.*\n', r'^(\.L_x_\w+):', r'\bBRA\b.*`\((\.L_x_\w+)\)'
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
        spill = max(number(r'(\d+) bytes stack frame'), number(r'(\d+) bytes spill stores'))
        kernels[kernel] = Figures(lanes=32, items=items, regs=regs, spill=spill, local=local, waves=groups * warps,
                                  cap=target.cap, **hot_loop(bodies[kernel], *SASS_CODE, nvidia_count))
    return kernels


# --- Intel: ocloc; an ELF file says what each kernel needs, a dump of its compiler holds the machine code ---
INTEL_CODE = r'^(?=// B\d+:)', r'^(_\w+|L\d+):', r'\b(?:goto|while|jmpi|brd)\b.*?\s(_\d+_\d+|L\d+)\b'
INTEL = re.compile(r'\s*(?:\([^()]*\)\s+)?([a-z]\w*)(?:\.\S+)?\s+\((\d+)\|M\d+\)(.*)')
INTEL_OTHER = {'send', 'sends', 'sendc', 'load', 'store', 'sync', 'goto', 'join', 'while', 'if', 'else', 'endif',
               'break', 'jmpi', 'brd', 'brc', 'nop', 'call', 'ret', 'cont', 'halt'}


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


def elf_sections(data):
    table, = struct.unpack_from('<Q', data, 0x28)
    size, count, names = struct.unpack_from('<HHH', data, 0x3a)
    sections = [struct.unpack_from('<IIQQQQ', data, table + i * size) for i in range(count)]
    text = lambda at: data[at:data.index(b'\0', at)].decode()
    return {text(sections[names][4] + name): data[offset:offset + length]
            for name, _, _, _, offset, length in sections}


def compile_intel(tools, source, name, target, folder):
    dump, out = folder / 'dump', folder / 'out'
    dump.mkdir()
    environment = dict(os.environ, IGC_ShaderDumpEnable='1', IGC_DumpToCustomDir=str(dump))
    run([tools['ocloc'], 'compile', '-file', source, '-device', name, '-options', '-cl-std=CL1.2', '-internal_options',
         '-cl-intel-allow-zebin', '-output', out, '-output_no_suffix', '-q'], env=environment, cwd=folder)
    # By kernel and width: machine code as text, and the bytes of it. The compiler tries some kernels again.
    tries = collections.defaultdict(list)
    for path in sorted(dump.glob('*_simd*_entry_*.asm')):
        text = path.read_text()
        key = re.match(r'//\.kernel (\w+)', text)[1], int(re.search(r'_simd(\d+)_', path.name)[1])
        tries[key].append((path.with_suffix('.dat').stat().st_size, text))
    sections = elf_sections(out.read_bytes())
    kernels = {}
    section = re.search(r'^kernels:\n(.*?)(?=^\S|\Z)', sections['.ze_info'].decode(), re.S | re.M)
    for entry in ('\n' + section[1]).split('\n  - name:')[1:]:
        kernel = entry.split()[0].strip("'\"")
        if kernel == 'Intel_Symbol_Table_Void_Program':  # of functions that are kept beside kernels
            continue
        number = lambda key: int(found[1]) if (found := re.search(rf'\n\s+{key}:\s+(\d+)', entry)) else 0
        sizes = re.search(r'required_work_group_size: \[ (\d+), (\d+), (\d+) \]', entry)
        items = math.prod(map(int, sizes.groups())) if sizes else UNSAID
        lanes, regs, local = number('simd_size'), number('grf_count'), number('slm_size')
        taken = len(sections['.text.' + kernel])  # with some bytes of padding: which of the tries it is
        if not tries[kernel, lanes]:
            raise CompileError(f'ocloc has left no code of {kernel} at {lanes} lanes')
        text = min(tries[kernel, lanes], key=lambda one: abs(one[0] - taken))[1]
        # Arrays that could not be kept in registers lie in scratch memory too, which a thread has in large pieces.
        found = re.search(r'//\.spill size (\d+)', text) or re.search(r'type: +scratch\n.*\n +size: +(\d+)', entry)
        spill = int(found[1]) if found else 0
        threads = math.ceil(items / lanes)
        cap = target.cap if regs <= 128 else target.cap // 2
        groups = cap * target.units // threads
        if local:
            groups = min(groups, target.local // local)
        kernels[kernel] = Figures(lanes=lanes, items=items, regs=regs, spill=spill, local=local,
                                  waves=round(groups * threads / target.units, 1), cap=target.cap,
                                  **hot_loop(text, *INTEL_CODE, lambda code: intel_count(lanes, code)))
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
