"""The kernels' machine code costs what tools/sass_budget.json allows; tools/sass_budget.py sees where it does not.

The first half needs nvcc and nvdisasm, no GPU; the second works on a listing of a few lines.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from pathlib import Path

import pytest
from emulation import ptx, sass_budget, sass_careful

# ---- the kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", sass_budget.budgeted())
def test_the_kernels_are_within_their_budget(arch: int, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        reports = {arch: sass_budget.measure(arch, ptx)}
    except sass_budget.Missing as missing:
        pytest.skip(str(missing))
    with capsys.disabled():  # the table belongs to CI's log
        print()
        wrong = sass_budget.check(reports)
    assert not wrong


def test_the_budget_is_complete() -> None:
    content = sass_budget.read_budget()
    names = {"Uniform32Open", "Uniform32Clamped", "UniformWide32", "Normal32", "TruncNormalCentral32", "TruncNormal32"}
    expected = {f"{name}/{dtype}" for name in names for dtype in sass_budget.STORAGES if dtype != "float64"}
    expected |= {f"{name}/float64" for name in ("Uniform64", "Normal64", "TruncNormal64")}
    expected |= {f"{name}/{dtype}" for name in ("Constant", "OneHot") for dtype in sass_budget.INTEGERS.values()}
    for numbers in content["budget"].values():
        programs = {name.replace("BlockUniform16", "Uniform32Clamped") for name in numbers}  # the same, from sm_80 on
        both = expected | {"BlockBits/uint32"}
        combined = {
            f"{name}/{dtype} combined"
            for name in ("Uniform32Open", "Uniform32Clamped", "Normal32", "TruncNormalCentral32")
            for dtype in ("float32", "float16", "bfloat16")
        }
        careful = {f"{name}/{bits} bits {layout}" for name in names for bits in (8, 16, 32) for layout in sass_careful.LAYOUTS}
        careful |= {
            f"{name}64/64 bits {layout}" for name in ("Uniform", "Normal", "TruncNormal") for layout in sass_careful.LAYOUTS
        }
        assert programs == both | {f"{name} rows" for name in both} | combined | careful | {"kernel"}
        assert numbers["kernel"]["registers"] <= 64, "half of the threads there can be (csrc/cuda/launch.h)"
    for arch, targets in content["targets"].items():
        for name, columns in targets.items():
            assert all(content["budget"][arch][name][column] <= most for column, most in columns.items()), name


def test_the_search_in_the_table_costs_two_percent_at_most() -> None:
    """Of a share of float32 normals, in a table of as many jobs as GPT-2 has tensors."""
    for numbers in sass_budget.read_budget()["budget"].values():
        steps = math.ceil(math.log2(148))
        share = sass_budget.share_bytes() / 4 * numbers["Normal32/float32"]["issue"]
        assert 0 < numbers["kernel"]["search"] * steps <= 0.02 * share


@pytest.mark.parametrize("name", ["Uniform32Open", "Uniform32Clamped", "Normal32", "TruncNormalCentral32"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_combining_costs_what_memory_allows_or_what_filling_costs(name: str, dtype: str) -> None:
    """An H200's memory moves 4.8 TB/s (its data sheet), its schedulers issue 132 * 4 * 32 * 1.98e9 instructions of a thread
    a second: so many slots pass while an element is read and written. Values that need more than that to be made are the limit
    themselves; to read, add and round takes five more.
    """
    numbers = sass_budget.read_budget()["budget"]["sm_90"]
    memory = 132 * 4 * 32 * 1.98e9 / 4.8e12 * 2 * (4 if dtype == "float32" else 2)
    filling = numbers.get(f"{name}/{dtype}") or numbers[f"BlockUniform16/{dtype}"]
    assert numbers[f"{name}/{dtype} combined"]["issue"] <= max(memory, filling["issue"] + 5)


SQRT = 'extern "C" __global__ void nvccs(float* x) { *x = __fsqrt_rn(*x); }\n'


@pytest.mark.parametrize("arch", [75, 80, 86, 89, 90, 100, 120])
def test_sqrt_is_what_nvcc_makes(arch: int, tmp_path: Path) -> None:
    """The sequence of csrc/core/scalar_device.h follows nvcc's range check; elsewhere nvcc calls a subroutine."""
    source, output = tmp_path / "sqrt.cu", tmp_path / f"sqrt_{arch}.ptx"
    source.write_text(SQRT)
    try:
        sass_budget.run([*sass_budget.to_ptx(arch, source), "-o", output])
        sass, _ = sass_budget.disassembled(output, arch)
    except sass_budget.Missing as missing:
        pytest.skip(str(missing))
    text = re.sub(r"\.(FTZ|reuse)|\s", "", ";".join(sass_budget.parse(sass).instructions))
    check, x, r, g, h, d = r"ISETP.GT.U32.AND(P\d),PT,R\d+,0x727fffff,PT", *(rf"(?P<{name}>R\d+)" for name in "xrghd")
    steps = [rf"MUFU.RSQ{r},{x}", check, rf"FMUL{g},(?P=x),(?P=r)", rf"FMUL{h},(?P=r),0.5"]
    steps += [rf"FFMA{d},-(?P=g),(?P=g),(?P=x)", r"FFMAR\d+,(?P=d),(?P=h),(?P=g)"]
    assert re.search(";.*".join(steps), text), text


# ---- the tool -------------------------------------------------------------------------------------------------------

PTX = """\
.visible .entry kernel()
{
	.loc	1 278 17, function_name $L__info_string7, inlined_at 1 339 13
	.loc	1 211 5, function_name $L__info_string8, inlined_at 1 278 17
	st.global.v4.b32 [%rd1], {%r1, %r2, %r3, %r4};
	.loc	1 279 17, function_name $L__info_string8, inlined_at 1 339 13
}
	.section	.debug_str
	{
$L__info_string7:
WHOLE
$L__info_string8:
STORE

	}
"""
WHOLE = "_ZN2wi4cuda4TileINS0_7Block32INS0_8Normal32ELNS_7StorageE0EEEE5wholeERKNS_7CudaJobEmm"
SASS = """\
.text.kernel:
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_3:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_0:
	//## File ".nv_debug_ptx_txt", line 4
        /*0020*/                   IMAD.WIDE.U32 R2, R0, -0x326172a9, RZ ;
        /*0030*/                   IMAD.X R5, RZ, RZ, R5, P0 ;
        /*0040*/                   LOP3.LUT R2, R2, UR4, R3, 0x96, !PT ;
        /*0050*/               @P1 FFMA R2, R2, R6, R7 ;
        /*0060*/                   MUFU.RSQ R3, R2 ;
	//## File ".nv_debug_ptx_txt", line 5
        /*0070*/                   STG.E.128 desc[UR4][R8.64], R4 ;
	//## File ".nv_debug_ptx_txt", line 4
        /*0080*/                   NOP ;
        /*0090*/               @P0 BRA `(.L_x_0) ;
        /*00a0*/              @!P2 BRA `(.L_x_3) ;
        /*00b0*/                   EXIT ;
.L_x_2:
        /*00c0*/                   BRA `(.L_x_2);
"""
LOP3, STG = "LOP3.LUT R2, R2, UR4, R3, 0x96, !PT ;", "STG.E.128 desc[UR4][R8.64], R4 ;"
SAID = """\
ptxas info    : Function properties for kernel
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers
"""
BUDGET = {"kernel": {"registers": 64.0}, "Normal32/float32": {"issue": 2.0, "heavy": 1.5, "share": 9.0}}


def data(text: str) -> str:
    """As nvcc writes a string: bytes in decimal."""
    return "\n".join(".b8 " + ",".join(map(str, part)) for part in (text.encode()[:40], text.encode()[40:] + b"\0"))


def ptx_of(function: str) -> str:
    return PTX.replace("WHOLE", data(function)).replace("STORE", data("_ZN2wi4cuda5storeEPNS0_8Vector16ERKS1_and_so_on"))


def report(sass: str = SASS, said: str = SAID, arch: int = 90, function: str = WHOLE) -> sass_budget.Report:
    return sass_budget.report(sass, ptx_of(function), said, arch)


def test_cycles() -> None:
    cost = report().costs["Normal32/float32"]
    total = {"issue": 8, "heavy": 4 + 2, "fma": 6, "alu": 2, "mufu": 8, "fp64": 0}
    assert cost.per_sample == {column: cycles / 4 for column, cycles in total.items()}
    assert (cost.limit, cost.store, cost.faults) == ("issue", 16, ())
    before = report(arch=80).costs["Normal32/float32"]
    assert before.per_sample["fma"] == (6 + 2) / 4, "one unit does both"
    spread = report(SASS.replace("LOP3.LUT", "FMUL").replace("MUFU.RSQ", "FADD")).costs["Normal32/float32"]
    assert spread.per_sample["fma"] == (6 + 2 * 3) / 2 / 4, "two halves, one of which multiplies integers"


def test_what_surrounds_the_loop() -> None:
    cost = report().costs["Normal32/float32"]
    assert cost.ends == 4, "two instructions before the loop; after it a branch that is not taken, and the end"
    assert cost.share == round(2.0 + 4 / (sass_budget.share_bytes() / 4), 3)
    longer = SASS.replace(
        "        /*00b0*/", "".join(f"        /*00{i}0*/      NOP ;\n" for i in range(100)) + "        /*00b0*/"
    )
    tight = {**BUDGET, "Normal32/float32": {"issue": 2.0, "heavy": 1.5, "share": 2.1}}
    assert list(sass_budget.excesses(report(longer), tight, {})) == ["Normal32/float32: share 2.41 per sample, budget 2.10"]
    with pytest.raises(ValueError, match="on a way from the kernel's begin to its end"):
        report(SASS.replace("EXIT", "BRA `(.L_x_3)"))


def test_of_rows_the_shortest_iteration_counts() -> None:
    """Without a loop within it, which regions of three and more dimensions need."""
    skipped = """\
        /*0041*/              @P2 BRA `(.L_x_9) ;
.L_x_8:
        /*0042*/                   LDL R2, [R1] ;
        /*0043*/               @P3 BRA `(.L_x_8) ;
.L_x_9:
        /*0050*/"""
    costs = report(SASS.replace("        /*0050*/", skipped), function=WHOLE.replace("5whole", "4rows")).costs
    assert costs["Normal32/float32 rows"].per_sample["issue"] == 9 / 4
    assert costs["Normal32/float32 rows"].faults == ()


CAREFUL = """\
        S2R R0, SR_TID.X|
.L_piece:
        IADD3 R0, R0, 0x1, RZ|each_block
        @P0 BRA `(.L_block)|each_block
        IMAD R1, R0, R0, RZ|piece_of
.L_block:
        FADD R2, R2, R2|_ZNK2wi4cuda8Normal32IfjE4pairEjjPf
        @P1 BRA `(.L_part)|each_block
        ST.E desc[UR4][R8.64], R4|store_block clEim 10
        BRA `(.L_stored)|store_block
.L_part:
        ST.E desc[UR4][R8.64], R4|store_block clEim 20
        @P2 BRA `(.L_stored)|store_block
        MOV R2, R3|6in_run
        ST.E desc[UR4][R8.64], R4|store_block clEim 30
.L_stored:
        @P3 BRA `(.L_block)|each_block
        @P4 BRA `(.L_piece)|each_block
        EXIT|
"""


def careful(text: str) -> dict[str, dict[str, float]]:
    """Of instructions, each with the function that it was inlined from and the line of the call."""
    sass, ptx, strings = [], ["_ZN2wi4cuda11fill_kernelILi4EEE"], []
    for line in text.splitlines():
        instruction, _, origin = line.partition("|")
        if line.startswith(".L"):
            sass.append(line)
            continue
        name, _, called_at = origin.rpartition(" ") if origin[-2:].isdigit() else (origin, "", "1")
        label = f"$L__info_string{len(strings)}"
        strings.append(f"{label}:\n{data(name.ljust(41))}")
        ptx.append(f"\t.loc\t1 5 5, function_name {label}, inlined_at 1 {called_at} 5" if origin else "\t.loc\t1 5 5")
        sass += [f'\t//## File ".nv_debug_ptx_txt", line {len(ptx)}', f"        /*0000*/ {instruction.strip()} ;"]
    listing, text = sass_budget.parse("\n".join(sass)), "\n".join([*ptx, *strings])
    return sass_careful.costs(listing, sass_budget.origins(listing, text), text, 90)


def test_of_the_careful_path_the_shortest_way_past_the_program_counts() -> None:
    found = careful(CAREFUL)
    slots = {name: columns["issue"] for name, columns in found.items()}
    blocks = sass_careful.piece_blocks()
    assert slots == {
        "Normal32/32 bits misaligned": (5 + 3) / 4,
        "Normal32/32 bits rows": (5 + 4 / blocks) / 4,
        "Normal32/32 bits runs": (7 + 4) / 4,
    }
    place = "        IMAD R1, R0, R0, RZ|piece_of\n"
    dearer = careful(CAREFUL.replace(place, place * 3))
    assert dearer["Normal32/32 bits rows"]["issue"] == (5 + 6 / blocks) / 4
    assert dearer["Normal32/32 bits misaligned"] == found["Normal32/32 bits misaligned"]
    with pytest.raises(ValueError, match="must store single elements in three places"):
        careful(CAREFUL.replace("clEim 30", "clEim 20"))


def test_a_costlier_careful_path_is_rejected() -> None:
    made = report()._replace(careful={"Normal32/32 bits rows": dict.fromkeys(sass_budget.COLUMNS, 47.0)})
    budget = {**BUDGET, "Normal32/32 bits rows": {"issue": 44.0, "heavy": 47.0}}
    assert list(sass_budget.excesses(made, budget, {})) == ["Normal32/32 bits rows: issue 47.00 per sample, budget 44.00"]
    assert list(sass_budget.excesses(report(), budget, {})) == ["Normal32/32 bits rows: no loop with a STG.E.128"]
    slow = report()._replace(search=13)
    assert list(sass_budget.excesses(slow, {**BUDGET, "kernel": {"registers": 64.0, "search": 12.0}}, {})) == [
        "kernel: search 13, budget 12.0"
    ]


def test_within_the_budget() -> None:
    assert list(sass_budget.excesses(report(), BUDGET, {})) == []
    tight = {**BUDGET, "Normal32/float32": {"issue": 1.95, "heavy": 1.5, "share": 2.0}}  # 3 % more is tolerated
    assert list(sass_budget.excesses(report(), tight, {"Normal32/float32": {"issue": 2.0}})) == []


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (LOP3, f"{LOP3}\n        /*0048*/                   {LOP3}", ["issue 2.25 per sample, budget 2.00"]),
        ("LOP3.LUT", "IMAD.HI.U32", ["heavy 2.50 per sample, budget 1.50"]),
        ("LOP3.LUT R2", "LDL R2", ["LDL"]),
        ("LOP3.LUT R2", "STL [R1], R2", ["STL"]),
        ("LOP3.LUT R2", "BAR.SYNC.DEFER_BLOCKING 0x0", ["BAR"]),
        ("LOP3.LUT R2", "STG.E desc[UR4][R8.64]", ["a store of less than 16 bytes"]),
        ("LOP3.LUT R2", "ST.E desc[UR4][R8.64]", ["a store of less than 16 bytes"]),
        ("STG.E.128", "STG.E.64", ["no loop with a STG.E.128"]),
    ],
)
def test_a_costlier_loop_is_rejected(old: str, new: str, wrong: list[str]) -> None:
    found = list(sass_budget.excesses(report(SASS.replace(old, new)), BUDGET, {}))
    assert found == [f"Normal32/float32: {text}" for text in wrong]


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("Used 64", "Used 72", "kernel: registers 72, budget 64.0"),
        ("0 bytes stack", "16 bytes stack", "kernel: 16 bytes of stack: something is spilled, or indexed in memory"),
    ],
)
def test_a_spilling_kernel_is_rejected(old: str, new: str, wrong: str) -> None:
    assert list(sass_budget.excesses(report(said=SAID.replace(old, new)), BUDGET, {})) == [wrong]


def test_targets_and_new_programs() -> None:
    assert list(sass_budget.excesses(report(), BUDGET, {"Normal32/float32": {"issue": 1.99}})) == [
        "Normal32/float32: issue 2.00 per sample, target 1.99"
    ]
    new = report(function=WHOLE.replace("StorageE0E", "StorageE2E"))
    assert "Normal32/float16: issue 1.00 per sample, budget 0.00" in list(sass_budget.excesses(new, BUDGET, {}))


@pytest.mark.parametrize(
    ("part", "program"),
    [
        ("7Block32INS0_20TruncNormalCentral32ELNS_7StorageE5EE", "TruncNormalCentral32/float8_e5m2"),
        ("14BlockUniform16ILNS_7StorageE3EE", "BlockUniform16/bfloat16"),
        ("7Block64INS0_9Uniform64EE", "Uniform64/float64"),
        ("9BlockBits", "BlockBits/uint32"),
        ("12BlockPatternImLb1EE", "OneHot/uint64"),
        ("12BlockPatternIhLb0EE", "Constant/uint8"),
    ],
)
def test_names_of_programs(part: str, program: str) -> None:
    assert list(report(function=f"_ZN2wi4cuda4TileINS0_{part}E5wholeERKNS_7CudaJobEmm").costs) == [program]


def test_names_of_programs_that_combine() -> None:
    start, end = "_ZN2wi4cuda13CombiningTileINS0_", "EE5wholeERKNS_7CudaJobERKNS_7CombineERKNS0_10WholeTilesE"
    for part, program in (
        ("8Normal32IfjEELNS_7StorageE3", "Normal32/bfloat16"),
        ("9Uniform32IfjLb1EEELNS_7StorageE0", "Uniform32Clamped/float32"),
    ):
        assert list(report(function=start + part + end).costs) == [f"{program} combined"]


def test_what_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"the unit of NEW\.OP must be known"):
        report(SASS.replace("MUFU.RSQ", "NEW.OP"))
    with pytest.raises(ValueError, match=r"must be inlined from Tile<\.\.\.>::whole, got line 5"):
        report(function="_ZN2wi4cuda4TileINS0_9BlockBitsEE6linearERKNS_7CudaJobEj")
    first = SASS.replace("EXIT", "NOP").replace("BRA `(.L_x_2)", "NOP")
    with pytest.raises(ValueError, match=r"one loop with a STG\.E\.128, got two of Normal32/float32"):
        report(first + SASS.split("RZ ;\n", 1)[1].replace("_0", "_9"))
    with pytest.raises(ValueError, match="ptxas must say what it used"):
        report(said="")


def test_command_line_without_nvcc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CUDACXX", "")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["sass_budget.py"])
    assert sass_budget.main() == 2
    assert capsys.readouterr().err == "sass_budget: no nvcc\n"
