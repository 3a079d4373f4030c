"""The machine code of the hot loops costs what tools/sass_budget.json allows; and tools/sass_budget.py counts right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import sass_budget

ARCH = 90


def test_budget(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        report = sass_budget.measure([ARCH])[ARCH]
    except sass_budget.Missing as missing:
        pytest.skip(str(missing))
    budget, targets = sass_budget.read_budget(), sass_budget.read_targets()
    with capsys.disabled():
        print("\n" + "\n".join(sass_budget.table(ARCH, report, budget)))
    assert list(sass_budget.excesses(ARCH, report, budget, targets)) == []


def test_budget_is_complete() -> None:
    for arch, programs in sass_budget.read_budget().items():
        assert set(programs) == {p.name for p in sass_budget.PROGRAMS}, arch
    assert f"sm_{ARCH}" in sass_budget.read_budget()


SQRT = """\
extern "C" __global__ void nvccs(float* x) { *x = __fsqrt_rn(*x); }
"""


@pytest.mark.parametrize("arch", [75, 80, 86, 89, 90, 100, 120])
def test_sqrt_is_what_nvcc_makes(arch: int, tmp_path: Path) -> None:
    """The sequence of csrc/cuda/device_math.h follows nvcc's range check; elsewhere nvcc calls a subroutine."""
    source = tmp_path / "sqrt.cu"
    source.write_text(SQRT)
    try:
        code, _ = sass_budget.compiled(source, arch, tmp_path / "sqrt.cubin")
    except sass_budget.Missing as missing:
        pytest.skip(str(missing))
    text = re.sub(r"\.(FTZ|reuse)|\s", "", ";".join(code["nvccs"].instructions))
    check, x, r, g, h, d = r"ISETP.GT.U32.AND(P\d),PT,R\d+,0x727fffff,PT", *(rf"(?P<{name}>R\d+)" for name in "xrghd")
    steps = [rf"MUFU.RSQ{r},{x}", check, rf"FMUL{g},(?P=x),(?P=r)", rf"FMUL{h},(?P=r),0.5"]
    steps += [rf"FFMA{d},-(?P=g),(?P=g),(?P=x)", r"FFMAR\d+,(?P=d),(?P=h),(?P=g)"]
    assert re.search(";.*".join(steps), text), text


# ---- the tool -------------------------------------------------------------------------------------------------------

LOOP = """\
.section	.text.normal_float32,"ax",@progbits
.text.normal_float32:
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_3:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_0:
        /*0020*/                   IMAD.WIDE.U32 R2, R0, -0x326172a9, RZ ;
        /*0030*/                   IMAD.X R5, RZ, RZ, R5, P0 ;
        /*0040*/                   LOP3.LUT R2, R2, UR4, R3, 0x96, !PT ;
        /*0050*/                   FFMA R2, R2, R6, R7 ;
        /*0060*/                   MUFU.RSQ R3, R2 ;
        /*0070*/               @P1 BRA `(.L_x_1) ;
        /*0080*/                   MOV R4, 0x90 ;
        /*0090*/                   CALL.REL.NOINC `($slow) ;
.L_x_1:
        /*00a0*/                   STG.E.128 desc[UR4][R8.64], R4 ;
        /*00b0*/               @P0 BRA `(.L_x_0) ;
        /*00c0*/              @!P2 BRA `(.L_x_3) ;
        /*00d0*/                   EXIT ;
.L_x_2:
        /*00e0*/                   BRA `(.L_x_2);
        /*00f0*/                   NOP;
"""
SAID = """\
ptxas info    : Compiling entry function 'normal_float32' for 'sm_90'
ptxas info    : Function properties for normal_float32
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 72 registers, used 0 barriers, 16 bytes cumulative stack size
"""


def cost_of(text: str, arch: int = ARCH) -> sass_budget.Cost:
    function = sass_budget.functions(text)["normal_float32"]
    return sass_budget.cost(sass_budget.by_name("normal/float32"), function, sass_budget.Use(40, 0, 0), arch)


def test_innermost_loop_without_the_call() -> None:
    (loop,) = sass_budget.hot_loops(sass_budget.functions(LOOP)["normal_float32"])
    opcodes = [sass_budget.opcode_of(line) for line in loop]
    assert opcodes == ["IMAD.WIDE.U32", "IMAD.X", "LOP3.LUT", "FFMA", "MUFU.RSQ", "BRA", "STG.E.128", "BRA"]


def test_cycles() -> None:
    cost = cost_of(LOOP)
    total = {"issue": 8, "heavy": 4 + 2, "fma": 6, "alu": 2, "mufu": 8, "fp64": 0}
    assert cost.per_sample == {column: cycles / 4 for column, cycles in total.items()}
    assert (cost.limit, cost.registers, cost.store, cost.faults) == ("issue", 40, 16, [])
    assert cost_of(LOOP, 80).per_sample["fma"] == (6 + 2) / 4  # one unit does both


def test_spread_over_the_float_units() -> None:
    cost = cost_of(LOOP.replace("LOP3.LUT R2, R2, UR4, R3, 0x96, !PT ;", "FMUL R2, R2, R3 ;").replace("MUFU.RSQ", "FADD"))
    assert cost.per_sample["fma"] == 6 / 4  # (6 + 2 * 3) / 2


@pytest.mark.parametrize(
    ("instruction", "fault"),
    [
        ("LDL R3, [R1]", "LDL"),
        ("BAR.SYNC.DEFER_BLOCKING 0x0", "BAR"),
        ("STG.E desc[UR4][R8.64], R4", "a store of less than 16 bytes"),
    ],
)
def test_what_a_loop_must_not_have(instruction: str, fault: str) -> None:
    assert fault in cost_of(LOOP.replace("FFMA R2, R2, R6, R7", instruction)).faults


def test_unknown_instruction() -> None:
    with pytest.raises(ValueError, match=r"the unit of NEW\.OP is not known"):
        cost_of(LOOP.replace("MUFU.RSQ", "NEW.OP"))


def test_loop_is_missing() -> None:
    with pytest.raises(ValueError, match="normal/float32 has 0 loops"):
        cost_of(LOOP.replace("STG.E.128", "STG.E.64"))


def test_uses() -> None:
    assert sass_budget.uses(SAID) == {"normal_float32": sass_budget.Use(72, 16, 12)}


REPORT = sass_budget.Report({"normal/float32": cost_of(LOOP)}, sass_budget.Use(64, 0, 0), [8.0], [])
ALLOWED = {"issue": 2.0, "heavy": 1.5}


def excesses(report: sass_budget.Report, allowed: dict[str, float], target: dict[str, float] | None = None) -> list[str]:
    budget, targets = ({f"sm_{ARCH}": {"normal/float32": numbers or {}}} for numbers in (allowed, target))
    return [text.removeprefix(f"sm_{ARCH} ") for text in sass_budget.excesses(ARCH, report, budget, targets)]


def test_within_the_budget() -> None:
    assert excesses(REPORT, ALLOWED) == []
    assert excesses(REPORT, {"issue": 1.95, "heavy": 1.5}, ALLOWED) == []  # 3 % more is tolerated


def test_excesses() -> None:
    assert excesses(REPORT, {"issue": 1.9, "heavy": 1.5}) == ["normal/float32: issue 2.00 per sample, budget 1.90"]
    assert excesses(REPORT, {}) == [f"normal/float32: no budget for {column}" for column in sass_budget.BUDGETED]
    assert excesses(REPORT, ALLOWED, {"issue": 1.99}) == ["normal/float32: issue 2.00 per sample, target 1.99"]
    other = REPORT._replace(kernel_loops=[9.0], faults=["STL"])
    assert excesses(other, ALLOWED) == ["fill_kernel: STL", "normal/float32: no loop of fill_kernel has as many instructions"]
