"""What gpu_compile.py reads out of machine code, names and complains of, on small pieces of each: no compiler is needed.
Prints TAP."""
import pathlib
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True

import gpu_compile
import gpu_compilers
from gpu_compilers import Figures

AMD = '''
    s_mov_b32 s0, 0
.LBB0_1:
    v_mov_b32 v0, 0
    global_load_dword v1, v[2:3], off
.LBB0_2:
    ds_read_b128 v[4:7], v1
    v_fmac_f32_e32 v8, v4, v5
    v_pk_fma_f32 v[10:11], v[4:5], v[6:7], v[10:11]
    v_dual_fmac_f32 v12, v4, v5 :: v_dual_fmac_f32 v13, v6, v7
    v_dual_fmac_f32 v14, v4, v5 :: v_dual_mov_b32 v15, v7
    v_add_nc_u32 v16, v16, v17
    s_cbranch_scc1 .LBB0_2
; %bb.3:
    v_cmp_lt_u32 vcc, v0, v1
    s_cbranch_vccnz .LBB0_1
    v_fma_f32 v1, v1, v1, v1
    s_endpgm
'''

NVIDIA = '''
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R2] ;
        /*0020*/         {         FFMA R8, R4, R5, R8 ;
        /*0028*/                   LDS.U.32 R9, [R2+0x10]         }
        /*0030*/                   FFMA R9, R4, R6, R9 ;
        /*0040*/              @!P0 FFMA R9, R4, R6, R9 ;
        /*0050*/                   IADD3 R2, R2, 0x10, RZ ;
        /*0060*/                   UIADD3 UR4, UR4, 0x1, URZ ;
        /*0070*/               @P1 BRA `(.L_x_1) ;
        /*0080*/                   FADD R8, R8, R9 ;
        /*0090*/                   EXIT ;
.L_x_2:
        /*00a0*/                   BRA `(.L_x_2) ;
'''

INTEL = '''
// B001: Preds:{B001, B000},  Succs:{B001, B002}
_0_017:
        load.slm.d32x4.a32 (16|M0)  r12:8       [r70:2]            {$11} // ex_desc:0x0; desc:0x4280500 // $72
        send.dc1 (16|M0)         r10      r70     null    0x0            0x04205EFE   {$8} // wr:2+0, rd:2; untyped surface read with x // $74
        send.dc1 (16|M0)         r10      r70     null    0x0            0x04205E01   {$8} // wr:2+0, rd:2; untyped surface read with x // $75
        mad (16|M0)              acc0.0<1>:f   r2.0<1;0>:f       r10.0<1;0>:f      r12.0<1>:f       {Compacted,$11.dst} // $79
(W)     mad (1|M0)               r127.2<1>:ud  r127.2<0;0>:ud    r127.0<0;0>:uw    0x60:uw              {I@1} //
        mad (8|M0)               r3.0<1>:f     r2.0<1;0>:f       r10.0<1;0>:f      r12.0<1>:f           {I@1} //
        mad (8|M8)               r3.0<1>:f     r2.0<1;0>:f       r10.0<1;0>:f      r12.0<1>:f           {I@1} //
        add (16|M0)              r4.0<1>:d     r2.0<1;1,0>:d     10:w               {Compacted,I@1}  // $979
        while (16|M0)            _0_017                                       // $900
// B002: Preds:{B001},  Succs:{}
        mov (16|M0)              r2.0<2>:ud    r4.0<1;1,0>:ud                   {Compacted,I@1}      // $983
'''

KERNEL = dict(lanes=32, items=64, regs=20, spill=0, local=0, waves=8, cap=16, mads=64, hot=90.0, loop=80.0, pairs=1.0,
              read=4.0)


def test_amd():
    found = gpu_compilers.hot_loop(AMD, *gpu_compilers.AMD_CODE, gpu_compilers.amd_count)
    assert found == dict(mads=6, hot=80.0, loop=57.1, pairs=1.5, read=6.0), found


def test_nvidia():
    found = gpu_compilers.hot_loop(NVIDIA, *gpu_compilers.SASS_CODE, gpu_compilers.nvidia_count)
    assert found == dict(mads=3, hot=75.0, loop=75.0, pairs=1.0, read=1.5), found
    straight = NVIDIA.replace('BRA `(.L_x_1)', 'NOP')  # no loop but the endless one behind every kernel
    found = gpu_compilers.hot_loop(straight, *gpu_compilers.SASS_CODE, gpu_compilers.nvidia_count)
    assert found == dict(mads=3, hot=60.0, loop=50.0, pairs=1.0, read=1.5), found


def test_intel():
    found = gpu_compilers.hot_loop(INTEL, *gpu_compilers.INTEL_CODE, lambda code: gpu_compilers.intel_count(16, code))
    assert found == dict(mads=2, hot=66.7, loop=66.7, pairs=1.0, read=1.0), found


def test_no_multiply_adds():
    found = gpu_compilers.hot_loop('    v_mov_b32 v0, 0\n', *gpu_compilers.AMD_CODE, gpu_compilers.amd_count)
    assert found == dict(mads=0, hot=None, loop=None, pairs=None, read=None), found


def test_kinds():
    define = lambda **values: ''.join(f'#define {key} {value}\n' for key, value in values.items())
    sizes = dict(M=128, N=2560, K=1152, MATMUL=0, FORWARD=0, BACKWARD_DATA=1, BACKWARD_WEIGHT=0)
    square = gpu_compile.describe('product_gpu.cl', define(**sizes, SIDE=16, WORK_M=4, WORK_N=2), 7)
    assert square[::2] == ('product backward data 64x32 of 4x2', 128 * 2560 * 1152), square
    tiled = define(**sizes, TILE_M=64, TILE_N=32, WORK_M=4, WORK_N=2, LOCAL_A=0, LOCAL_B=1)
    assert gpu_compile.describe('product_gpu.cl', tiled, 7).kind == square.kind + ' A global'
    # Of several products in one kernel the largest counts; the convolutions of a joined one count all.
    joined = define(**sizes, TAPS=9, TERMS_0=1, TERMS_1=2, TILE_M=64, TILE_N=64, WORK_M=8, WORK_N=4)
    both = gpu_compile.describe('product_gpu.cl + 1', f'#define NAME a\n{joined}#undef NAME\n#define NAME b\n{tiled}', 7)
    assert both[::2] == ('product backward data 64x64 of 8x4 joined', 27 * 128 * 2560 * 1152), both
    for what, kind in (('fused 13 of [10,32,28,28]', 'rows of 28x28'), ('fused 2 of [100,10]', 'rows of 10'),
                       ('fused 2 of [100]', 'rows of a vector'), ('elementwise 288', 'elementwise'),
                       ('scatter_rows.cl', 'scatter_rows')):
        assert gpu_compile.describe(what, '', 7)[::2] == (kind, 7), what


def test_complaints():
    stored = gpu_compile.columns(Figures(**KERNEL))
    wrong = lambda kind, **other: gpu_compile.complaints(kind, [{**KERNEL, **other}, KERNEL][::-1], stored)
    assert wrong('product forward') == []
    assert wrong('product forward', spill=8) == ['8 bytes spilled, by 1 of 2 kernels']
    assert wrong('rows of 10', spill=8) == []
    assert len(wrong('rows of 10', local=32769)) == 1 and wrong('rows of 10', local=32768) == []
    assert len(wrong('product forward', loop=77.9)) == 1 and wrong('product forward', loop=78.0) == []
    assert len(wrong('product forward', loop=None)) == 1
    assert len(gpu_compile.complaints('rows of 10', ['crashed'], None)) == 1


def test_table():
    with tempfile.TemporaryDirectory() as folder:
        gpu_compile.TABLE = pathlib.Path(folder) / 'table.txt'
        assert gpu_compile.read_table() == {}
        rows = gpu_compile.summary('rows of 10', [KERNEL, {**KERNEL, 'regs': 30, 'waves': 4.5}])
        assert (rows.regs, rows.waves, rows.loop) == (30, 4.5, None)
        table = {('pvc', 'product forward 64x64 of 4x4 A global'): list(map(str, gpu_compile.columns(Figures(**KERNEL)))),
                 ('gfx906', 'rows of 10'): list(map(str, gpu_compile.columns(rows)))}
        gpu_compile.write_table(table)
        assert gpu_compile.read_table() == table, gpu_compile.TABLE.read_text()


TESTS = [value for name, value in list(globals().items()) if name.startswith('test_')]
print(f'1..{len(TESTS)}')
failed = 0
for number, test in enumerate(TESTS, 1):
    try:
        test()
        print(f'ok {number} - {test.__name__}')
    except Exception:
        failed = 1
        print(f'not ok {number} - {test.__name__}')
        print(''.join(f'# {line}\n' for line in traceback.format_exc().splitlines()), end='')
sys.exit(failed)
