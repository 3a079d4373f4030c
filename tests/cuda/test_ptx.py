"""What nvcc makes of the CUDA kernel, without a GPU: its PTX gives the bits of the CPU backend and holds no inexact arithmetic.

tools/ptx_to_c.py turns the PTX into C, which tests/native/emulated_gpu.cpp runs for every thread and block.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import emulation
import pytest
from emulation import BUILD, CC, NATIVE, ROOT, check, harness, made, ptx_to_c, run_command, sass_budget

ARCHITECTURES = (75, 90)  # without and with conversions to float16, bfloat16 and float8
NAMES = ("fill_8bit", "fill_16bit", "fill_32bit", "fill_64bit", "combine")
KERNELS = [(name, architecture) for name in NAMES for architecture in ARCHITECTURES]
SECTIONS = ("kinds", "consecutive", "regions", "far_index", "tables", "grids")
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")

needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc")
needs_cc = pytest.mark.skipif(shutil.which(CC) is None, reason=f"no {CC}")
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids="{0[0]}_{0[1]}".format)
Kernel = tuple[str, int]


def on_all(task: Callable[[Kernel], Path]) -> dict[Kernel, Path]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(KERNELS, pool.map(task, KERNELS), strict=True))


@pytest.fixture(scope="module")
def ptx() -> dict[Kernel, Path]:
    return on_all(lambda kernel: emulation.ptx(kernel[1], ROOT / "csrc" / "cuda" / f"{kernel[0]}.cu"))


@pytest.fixture(scope="module")
def kernels(ptx: dict[Kernel, Path]) -> dict[Kernel, ptx_to_c.Kernel]:
    return {kernel: ptx_to_c.parse(path.read_text()) for kernel, path in ptx.items()}


@pytest.fixture(scope="module")
def programs(kernels: dict[Kernel, ptx_to_c.Kernel]) -> dict[int, Path]:
    def compile_to_object(kernel: Kernel) -> Path:
        name, architecture = kernel
        source = BUILD / f"{name}_{architecture}.c"
        source.write_text(ptx_to_c.translate(kernels[kernel], name))
        return compiled_c(source, "-Og")

    def compiled_c(source: Path, *flags: str) -> Path:
        command = [CC, "-std=c11", "-ffp-contract=off", "-fno-math-errno", *flags, "-c", str(source)]
        return made(BUILD / f"{source.stem}.o", command, [source])

    objects = on_all(compile_to_object)
    any_of_them = compiled_c(NATIVE / "emulated_ptx.c", "-Wall", "-Wextra", "-Werror")

    def link(architecture: int) -> Path:
        mine = [object_ for (_, of), object_ in objects.items() if of == architecture]
        return harness([any_of_them, *mine], f"emulated_gpu_{architecture}")

    return {architecture: link(architecture) for architecture in ARCHITECTURES}


@needs_nvcc
@needs_cc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("section", SECTIONS)
def test_bits(programs: dict[int, Path], architecture: int, section: str) -> None:
    check(programs[architecture], section)


@needs_nvcc
@needs_cc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", ["add", "lerp"])
@pytest.mark.parametrize("section", ["consecutive", "regions", "far_index"])
def test_combined_bits(programs: dict[int, Path], architecture: int, mode: str, section: str) -> None:
    check(programs[architecture], section, mode)


# ---- what the PTX is made of ----------------------------------------------------------------------------------------

# Everything that may touch a float: exactly rounded, or exact. The seeds alone are approximate, and their .ftz does nothing to
# the normal numbers that they see. add, sub and mul without .rn are missing, since ptxas may contract them; so is fma in
# float64, where the format has none. That no fma is one that the source does not ask for is shown by the bits.
FLOAT = re.compile(
    r"(add|sub|mul)\.rn\.f(32|64)|fma\.rn\.f32|(div|sqrt)\.rn\.f64|(neg|mov|selp)\.f(32|64)|setp\.(lt|gt|le|ge|eq|nan|num)\.f(32|64)"
    r"|(ld|st)(\.\w+)*\.f(32|64)|cvt\.rn\.f32\.(s32|f64)|cvt\.f32\.f16|cvt\.rn(\.satfinite)?\.(b?f16|e4m3|e5m2)x2\.f32"
    r"|(min|max)\.(f32|b?f16x2)|(rsqrt|rcp)\.approx(\.ftz)?\.f32"
)
ONE, HALF = "0f3F800000", "0f3F000000"


@needs_nvcc
@each_kernel
def test_arithmetic_is_exact(kernels: dict[Kernel, ptx_to_c.Kernel], kernel: Kernel) -> None:
    for at in kernels[kernel].instructions:
        if re.search(r"\.b?f\d|\.e[45]m|\.approx|\.ftz|\.full", at.opcode):
            assert FLOAT.fullmatch(at.opcode), str(at)


@needs_nvcc
@each_kernel
def test_approximations_are_only_seeds(kernels: dict[Kernel, ptx_to_c.Kernel], kernel: Kernel) -> None:
    """Each is read by the first step of its sequence (csrc/core/scalar_device.h) and by nothing else."""
    readers: dict[str, list[ptx_to_c.Instruction]] = defaultdict(list)
    names: dict[str, str] = {}  # of a copied or negated register, or of one that holds a constant
    for at in kernels[kernel].instructions:
        for operand in at.operands[1:]:
            readers[operand].append(at)
        if at.opcode in ("neg.f32", "mov.f32"):
            names[at.operands[0]] = at.operands[1] if at.operands[0] not in names else ""
    seeds = 0
    for at in kernels[kernel].instructions:
        if ".approx" not in at.opcode:
            continue
        seeds += 1
        seed, x = at.operands
        reads = {(i.opcode, *sorted(names.get(o, o) for o in i.operands[1:])) for i in readers[seed]}
        if at.opcode.startswith("rsqrt"):
            assert reads == {("mul.rn.f32", *sorted((x, seed))), ("mul.rn.f32", *sorted((HALF, seed)))}, str(at)
        else:
            residual = readers[seed][0].operands[0]
            assert reads == {("fma.rn.f32", *sorted((x, seed, ONE))), ("fma.rn.f32", *sorted((residual, seed, seed)))}, str(at)
    assert (seeds > 0) == (kernel[0] != "fill_64bit"), "float64 has exact instructions for both"


@needs_nvcc
@each_kernel
def test_memory(ptx: dict[Kernel, Path], kernels: dict[Kernel, ptx_to_c.Kernel], kernel: Kernel) -> None:
    """No local or shared memory, no calls, no barriers; and stores of 16 bytes."""
    text = ptx[kernel].read_text()
    assert not re.search(r"\.local|\.shared|__local_depot|\bcall\b|\bbar\.|\batom\.", text)
    assert any(re.fullmatch(r"st(\.\w+)*\.v4\.[bfu]32", at.opcode) for at in kernels[kernel].instructions)


def ptx_for(version: int, architecture: int) -> Path:
    """Of the kernel of 8 bits, what nvcc of another CUDA would make of the part that depends on it."""
    source = sass_budget.KERNELS[0]
    command = [*sass_budget.to_ptx(architecture, source), f"-DWI_CUDA_VERSION={version}"]
    return made(BUILD / f"{source.stem}_{architecture}_cuda{version}.ptx", command, [source, *emulation.HEADERS])


@needs_nvcc
@pytest.mark.parametrize(("version", "architecture", "by_hardware"), [(1201, 89, True), (1200, 89, False), (1108, 90, True)])
def test_float8_is_converted_by_what_the_assembler_takes(version: int, architecture: int, by_hardware: bool) -> None:
    """ptxas of CUDA 11.8 and 12.0 refuses the instructions for sm_89: "requires .target sm_90 or higher"."""
    assert ("e4m3x2" in ptx_for(version, architecture).read_text()) == by_hardware


def ptxas_of_cuda_11_8() -> str | None:
    """The assembler of the oldest CUDA that is supported: of the wheel nvidia-cuda-nvcc-cu11."""
    try:
        files = metadata.files("nvidia-cuda-nvcc-cu11") or []
    except metadata.PackageNotFoundError:
        files = []
    return next((str(file.locate()) for file in files if file.name == "ptxas"), None)


def assembled_by_the_oldest(made_by: Path, architecture: int, folder: Path) -> str:
    """What ptxas of CUDA 11.8 says of PTX whose number of the language alone is made older."""
    assembler = ptxas_of_cuda_11_8()
    if assembler is None:
        pytest.skip("no nvidia-cuda-nvcc-cu11")
    older = folder / "older.ptx"
    older.write_text(re.sub(r"^\.version .*$", ".version 7.8", made_by.read_text(), count=1, flags=re.MULTILINE))
    command = [assembler, f"-arch=sm_{architecture}", "-v", str(older), "-o", str(folder / "cubin")]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


@needs_nvcc
@pytest.mark.parametrize("name", NAMES)
def test_the_oldest_assembler_takes_it(name: str, ptx: dict[Kernel, Path], tmp_path: Path) -> None:
    said = assembled_by_the_oldest(ptx[name, 90], 90, tmp_path)
    assert re.search(r" 0 bytes stack frame(?s:.*)Used \d+ registers", said), said


@needs_nvcc
@pytest.mark.parametrize(("version", "taken"), [(1200, True), (1201, False)])
def test_for_sm_89_the_oldest_assembler_takes_no_float8(version: int, taken: bool, tmp_path: Path) -> None:
    said = assembled_by_the_oldest(ptx_for(version, 89), 89, tmp_path)
    assert bool(re.search(r" 0 bytes stack frame(?s:.*)Used \d+ registers", said)) == taken, said
    assert ("requires .target sm_90 or higher" in said) != taken


# ---- the translator itself ------------------------------------------------------------------------------------------

HEAD = """\
.version 9.0
.target sm_90
.address_size 64
.visible .entry kernel(
    .param .align 8 .b8 p[16]
)
{
    .reg .pred %p<4>;
    .reg .b16 %rs<4>;
    .reg .f32 %f<4>;
    .reg .b32 %r<9>;
    .reg .f64 %fd<4>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd8, [p];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, -7;
    mov.u64 %rd1, 0x8000000000000005;
"""
STUBS = """
void gpu_read(uint64_t address, uint32_t bytes) { (void)address, (void)bytes; }
void gpu_write(uint64_t address, uint32_t bytes) { (void)address, (void)bytes; }
float gpu_rsqrt_approx(float x) { return 1 / __builtin_sqrtf(x); }
float gpu_rcp_approx(float x) { return 1 / x; }
"""
# %r1 = 0x89abcdef, %rs1 = 0xcdef, %r2 = -7, %rd1 = 2^63 + 5; the result is in %rd7, or else in %r3, or else in %rs2.
# Instructions that are rare or have pitfalls; the others are covered by the kernel's bits.
CASES = {
    "add.s32 %r3, %r2, 5;": 2**32 - 2,
    "shr.s32 %r3, %r2, 1;": 2**32 - 4,
    "shr.s32 %r3, %r2, 40;": 2**32 - 1,
    "shr.u32 %r3, %r1, 32;": 0,
    "shr.u32 %r3, %r1, 28;": 8,
    "shl.b32 %r3, %r1, 33;": 0,
    "shl.b64 %rd7, %rd1, 60;": 5 << 60,
    "div.s32 %r3, %r2, 2;": 2**32 - 3,
    "rem.s32 %r3, %r2, 2;": 2**32 - 1,
    "max.u32 %r3, %r2, %r1;": 2**32 - 7,
    "max.s32 %r3, %r2, %r1;": 2**32 - 7,
    "mul.wide.s32 %rd7, %r2, 3;": -21,
    "mul.wide.u32 %rd7, %r1, %r1;": 0x89ABCDEF**2,
    "mul.wide.u16 %r3, %rs1, -13107;": 0xCDEF * 52429,
    "mul.lo.s16 %rs2, %rs1, %rs1;": 0xCDEF**2 & 0xFFFF,
    "mul.hi.u32 %r3, %r1, %r1;": 0x89ABCDEF**2 >> 32,
    "mul.hi.s32 %r3, %r1, 5;": (0x89ABCDEF - 2**32) * 5 >> 32 & 0xFFFFFFFF,
    "mul.hi.u64 %rd7, %rd1, %rd1;": (2**63 + 5) ** 2 >> 64,
    "mul.hi.s64 %rd7, %rd1, 3;": -2,
    "mad.wide.s32 %rd7, %r2, 3, %rd1;": 2**63 + 5 - 21,
    "mad.lo.s32 %r3, %r2, %r2, %r2;": 42,
    "bfi.b32 %r3, %r2, %r1, 8, 12;": 0x89AFF9EF,
    "bfe.u32 %r3, %r1, 4, 8;": 0xDE,
    "bfe.u64 %rd7, %rd1, 60, 20;": 8,
    "prmt.b32 %r3, %r1, %r2, 0x5401;": 0xFFF9EFCD,
    "prmt.b32 %r3, %r1, %r2, 0xF080;": 0xFFEFFFEF,
    "lop3.b32 %r3, %r1, %r2, 255, 0x96;": 0x89ABCDEF ^ (2**32 - 7) ^ 255,
    "lop3.b32 %r3, %r1, 15, 240, 0xEA;": (0x89ABCDEF & 15) | 240,
    "shf.l.wrap.b32 %r3, %r1, %r2, 36;": 0xFFFFFF98,
    "shf.l.clamp.b32 %r3, %r1, %r2, 36;": 0x89ABCDEF,
    "shf.r.wrap.b32 %r3, %r1, %r2, 4;": 0x989ABCDE,
    "mov.b32 {%rs2, %rs3}, %r1; mov.b32 %r3, {%rs3, %rs2};": 0xCDEF89AB,
    "mov.b64 {%r3, %r4}, %rd1; mov.b64 %rd7, {%r4, %r3};": 5 << 32 | 0x80000000,
    "cvt.u32.u16 %r3, %rs1; cvt.s32.s16 %r4, %rs1; xor.b32 %r3, %r3, %r4;": 0xFFFF0000,
    "cvt.s64.s8 %rd7, %r1;": -17,
    "not.b64 %rd7, %rd1; neg.s64 %rd7, %rd7;": (2**63 + 5) + 1,
    "setp.lt.s32 %p1, %r1, %r2; setp.lt.u32 %p2, %r2, %r1; xor.pred %p3, %p1, %p2; selp.b64 %rd7, 1, 2, %p3;": 1,
    "mov.u64 %rd7, 3; setp.eq.s32 %p1, %r2, -7; @!%p1 bra $END; @%p1 mov.u64 %rd7, 4;": 4,
    "mov.u32 %r3, 2; brx.idx %r3, $T; $A: mov.u64 %rd7, 1; bra $END; $B: bra $A; $C: mov.u64 %rd7, 9;": 9,
    "mov.f32 %f1, 0f7F800000; sub.rn.f32 %f2, %f1, %f1; setp.ne.f32 %p1, %f2, %f2; selp.b64 %rd7, 1, 2, %p1;": 2,
    "mov.f64 %fd1, 0d3FF8000000000000; neg.f64 %fd2, %fd1; mov.b64 %rd7, %fd2;": 0xBFF8000000000000,
    "cvt.rn.f32.s32 %f1, %r1; mov.b32 %r3, %f1;": 0xCEECA864,
    "mov.f64 %fd1, 0d3FF0000030000000; cvt.rn.f32.f64 %f1, %fd1; mov.b32 %r3, %f1;": 0x3F800002,
    "mov.f32 %f1, 0f477FF000; mov.f32 %f2, 0fB3000001; cvt.rn.f16x2.f32 %r3, %f1, %f2;": 0x7C008001,
    "mov.f32 %f1, 0f477FEFFF; mov.f32 %f2, 0f3F801000; cvt.rn.f16x2.f32 %r3, %f1, %f2;": 0x7BFF3C00,
    "mov.f32 %f1, 0f3F808000; mov.f32 %f2, 0fBF818000; cvt.rn.bf16x2.f32 %r3, %f1, %f2;": 0x3F80BF82,
    "mov.f32 %f1, 0f43E80000; mov.f32 %f2, 0fBF780000; cvt.rn.satfinite.e4m3x2.f32 %rs2, %f1, %f2;": 0x7EB8,
    "mov.f32 %f1, 0f3A800000; mov.f32 %f2, 0f3AC00000; cvt.rn.satfinite.e4m3x2.f32 %rs2, %f1, %f2;": 0x0001,
    "mov.f32 %f1, 0fFF800000; mov.f32 %f2, 0f37400000; cvt.rn.satfinite.e5m2x2.f32 %rs2, %f1, %f2;": 0xFB01,
    "mov.f32 %f1, 0f80000000; mov.f32 %f2, 0f00000000; min.f32 %f3, %f2, %f1; mov.b32 %r3, %f3;": 1 << 31,
    "mov.f32 %f1, 0f80000000; mov.f32 %f2, 0f00000000; max.f32 %f3, %f1, %f2; mov.b32 %r3, %f3;": 0,
    "mov.f32 %f1, 0fFFC00001; mov.f32 %f2, 0f3F800000; max.f32 %f3, %f1, %f2; mov.b32 %r3, %f3;": 0x3F800000,
    "mov.u16 %rs2, 0x8001; cvt.f32.f16 %f1, %rs2; mov.b32 %r3, %f1;": 0xB3800000,
    "mov.u16 %rs2, 0x7BFF; cvt.f32.f16 %f1, %rs2; mov.b32 %r3, %f1;": 0x477FE000,
    "mov.u16 %rs2, 0xFC00; cvt.f32.f16 %f1, %rs2; mov.b32 %r3, %f1;": 0xFF800000,
    "mov.f32 %f1, 0fFFC00001; mov.f32 %f2, 0f3F800000; setp.nan.f32 %p1, %f2, %f1; selp.b64 %rd7, 1, 2, %p1;": 1,
    "mov.f32 %f1, 0f7F800000; mov.f32 %f2, 0f3F800000; setp.num.f32 %p1, %f2, %f1; selp.b64 %rd7, 1, 2, %p1;": 1,
    "max.f16x2 %r3, 0x80003C00, 0x00007C01;": 0x00003C00,
    "min.f16x2 %r3, 0x8000BC00, 0x0000BC01;": 0x8000BC01,
    "min.bf16x2 %r3, 0x7FC13F80, 0xFFC03F81;": 0x7FFF3F80,
}  # fmt: skip


@needs_cc
def test_translator(tmp_path: Path) -> None:
    def body() -> Iterator[str]:
        for i, case in enumerate(CASES):
            result = "" if "%rd7" in case else "cvt.u64.u32 %rd7, %r3;" if "%r3" in case else "cvt.u64.u16 %rd7, %rs2;"
            lines = re.sub(r"\$(\w+)", rf"$L{i}_\1", case).replace(";", ";\n").replace(": ", ":\n")
            yield f"$L{i}_T: .branchtargets $L{i}_A, $L{i}_B, $L{i}_C;" if "brx" in case else ""
            yield f"cvt.u16.u32 %rs1, %r1;\n{lines}\n$L{i}_END:\n{result}\nst.u64 [%rd8+{8 * i}], %rd7;"

    source, library = tmp_path / "cases.c", tmp_path / "cases.so"
    text = HEAD + "\n".join(body()) + "\nret;\n}\n"
    source.write_text(ptx_to_c.translate(ptx_to_c.parse(text)) + STUBS)
    run_command([CC, "-std=c11", "-O1", "-ffp-contract=off", "-shared", "-fPIC", str(source), f"-o{library}"])
    results = (ctypes.c_uint64 * len(CASES))()
    param = (ctypes.c_uint64 * 2)(ctypes.addressof(results), 0)
    ctypes.CDLL(str(library)).ptx_thread(param, ctypes.c_uint32(0x89ABCDEF), 0, 1)
    wrong = [(case, hex(got)) for (case, want), got in zip(CASES.items(), results, strict=True) if got != want % 2**64]
    assert not wrong


UNKNOWN = (
    "mul.f32 %f1, %f2, %f3;",
    "sin.approx.f32 %f1, %f2;",
    "mov.u32 %r1, %laneid;",
    "add.s32 %r1, %r2;",
    "ld.local.u32 %r1, [%rd1];",
    "!",
)


@pytest.mark.parametrize("line", UNKNOWN)
def test_unknown_is_an_error(line: str) -> None:
    with pytest.raises(ptx_to_c.PtxError, match=re.escape(line.split()[0])):
        ptx_to_c.translate(ptx_to_c.parse(HEAD + line + "\nret;\n}\n"))


def test_command_line(tmp_path: Path) -> None:
    path = tmp_path / "kernel.ptx"
    path.write_text(HEAD + "ret;\n}\n")
    command = [sys.executable, str(ROOT / "tools" / "ptx_to_c.py"), str(path)]
    assert "void ptx_thread(" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
