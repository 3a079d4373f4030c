"""What the kernels' programs cost in machine code, against a committed budget: no GPU is needed, only nvcc and nvdisasm.

    python tools/sass_budget.py                 the table; exit status 1 if something costs over 3 % more than its budget
    python tools/sass_budget.py --arch 80 100   the same for other architectures than those of the budget
    python tools/sass_budget.py --write         tools/sass_budget.json anew; its targets, which the project has promised, stay

The kernels are compiled with the flags of the build and with line numbers, which change no instruction. A hot loop is an
innermost loop that stores 16 bytes. It belongs to the program (a distribution of csrc/core in a dtype) whose Tile<...>::whole()
or rows(), or CombiningTile<...>::whole(), the store was inlined into: the machine code names lines of the PTX, and these the
C++ function. All instructions between the loop's ends count, those of rare cases, too. Of rows() and of what combines it is the
fewest of an iteration: they have a loop for regions of three and more dimensions, and what is done where an element is NaN.

`ends` counts the instructions of a thread outside of the loop, for a whole share of a tensor (csrc/cuda/launch.h): the fewest
from the kernel's begin to the loop and from there to its end. `share` is `issue` with them, per sample of the longest share.

Columns, per sample: `issue` counts instructions, one slot of the scheduler each; the others are cycles of the units that one
scheduler feeds: `heavy` of the integer multiplier, `fma` of it and the float32 units together, `alu`, `mufu`, `fp64`. The
largest is the limit. Sources: CUDA C++ Programming Guide, throughput of native arithmetic instructions: 128 / (results per
clock and multiprocessor) cycles; sm_100 and sm_120 are taken as sm_90 but for fp64. It does not list IMAD.WIDE and IMAD.HI:
4 cycles is the distance that ptxas keeps between two of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
LAUNCH = CSRC / "cuda" / "launch.h"
KERNELS = (*(CSRC / "cuda" / f"fill_{bits}bit.cu" for bits in (8, 16, 32, 64)), CSRC / "cuda" / "combine.cu")
BUILD = ROOT / "build" / "sass"
BUDGET = Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
STORE = "STG.E.128"


class Missing(RuntimeError):
    """A tool that is needed is not there."""


# ---- instructions ---------------------------------------------------------------------------------------------------

COLUMNS = ("issue", "heavy", "fma", "alu", "mufu", "fp64")
_OPCODES = {  # of each unit, without what follows the first point
    "fma": "FFMA FMUL FADD FFMA2 FMUL2 FADD2 HFMA2 HADD2 HMUL2",
    "alu": "LOP3 PLOP3 IADD3 IADD VIADD VIADDMNMX LEA SHF SEL ISETP PRMT MOV VIMNMX IMNMX FSEL FSETP FSET FMNMX FCHK I2FP F2FP"
    " HMNMX2 HSETP2 HSET2 SGXT BMSK P2R R2P",
    "mufu": "MUFU I2F F2I F2F I2I FRND FLO POPC BREV",
    "fp64": "DFMA DADD DMUL DSETP",
}
UNITS = {opcode: unit for unit, opcodes in _OPCODES.items() for opcode in opcodes.split()}
OTHERS = re.compile(r"U[A-Z]\w*|R2UR|S2U?R|CS2R|LD\w*|ST\w*|BRA|BSSY|BSYNC|BMOV|BREAK|CALL|WARPSYNC|YIELD|NOP")
BARRED = re.compile(r"LDL|STL|BAR|STS|LDS|ATOMG?|RED|MEMBAR|NANOSLEEP")  # from a hot loop


def opcode_of(instruction: str) -> str:
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0]


def unit_and_cycles(opcode: str, arch: int) -> tuple[str, float]:
    """Where one warp's instruction is executed, and for how long; ("", 0.0) where that is never the limit.

    Raises:
        ValueError: an instruction whose unit is not known.
    """
    name = opcode.split(".")[0]
    if name == "IMAD":  # also the additions and copies that ptxas makes of it
        return "heavy", 4.0 if ".WIDE" in opcode or ".HI" in opcode else 2.0
    if name in UNITS:
        fp64 = {80: 4.0, 90: 2.0, 100: 2.0}.get(arch, 64.0)
        return UNITS[name], {"fma": 2.0 if arch <= 80 else 1.0, "alu": 2.0, "mufu": 8.0, "fp64": fp64}[UNITS[name]]
    if OTHERS.fullmatch(name) or BARRED.fullmatch(name):
        return "", 0.0
    raise ValueError(f"sass_budget: the unit of {opcode} must be known. Add it to _OPCODES in tools/sass_budget.py.")


def count(loop: Sequence[str], arch: int) -> dict[str, float]:
    """Slots and cycles of a loop's instructions, by column."""
    total = {"": 0.0, **dict.fromkeys(COLUMNS, 0.0), "issue": float(len(loop))}
    for instruction in loop:
        unit, cycles = unit_and_cycles(opcode_of(instruction), arch)
        total[unit] += cycles
    # Of the float32 units one half is the multiplier's, so the work spreads; up to sm_80 there is no other half.
    both = total["heavy"] + total["fma"] if arch <= 80 else total["heavy"] / 2 + total["fma"]
    return {column: total[column] for column in COLUMNS} | {"fma": max(total["heavy"], both)}


# ---- loops and their programs ---------------------------------------------------------------------------------------

_LABEL = re.compile(r"^(\.L\w+):")
_LINE = re.compile(r'^\s*//## File "\.nv_debug_ptx_txt", line (\d+)')
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_TARGET = re.compile(r"\bBRA\b.*`\(([^)]+)\)")
_ALWAYS = re.compile(r"BRA(\.\w+)* `\([^)]+\)|BRX.*|EXIT|RET.*")  # what never goes on to the next instruction


class Listing(NamedTuple):
    """What `nvdisasm -c -gp` prints of the kernel."""

    instructions: list[str]
    lines: list[int]  # of the PTX, one for each instruction
    labels: dict[str, int]  # of each, the position of the instruction that follows

    def target(self, at: int) -> int | None:
        match = _TARGET.search(self.instructions[at])
        return self.labels.get(match[1]) if match else None

    def successors(self, at: int) -> list[int]:
        """What may follow an instruction."""
        text = self.instructions[at]
        if opcode_of(text).startswith("BRX"):
            return [self.labels[label] for label in re.findall(r"\.L\w+", text) if label in self.labels]
        target = self.target(at)
        following = [] if target is None else [target]
        return following if _ALWAYS.fullmatch(text) else [*following, *range(at + 1, min(at + 2, len(self.instructions)))]

    def way(self, begin: int, ends: Collection[int]) -> list[int]:
        """The fewest instructions from one to any of some others, both included. Empty: there is no way."""
        before, now = {begin: -1}, [begin]
        while now and not (found := [at for at in now if at in ends]):
            following = {n: at for at in now for n in self.successors(at) if n not in before}
            before.update(following)
            now = list(following)
        way = found[:1] if now else []
        while way and way[-1] != begin:
            way.append(before[way[-1]])
        return way[::-1]

    def around(self, begin: int, end: int) -> int:
        """Instructions outside of a loop, from the kernel's first to its last."""
        before = self.way(0, {begin})
        out = {n for at in range(begin, end + 1) for n in self.successors(at) if not begin <= n <= end}
        exits = {at for at, text in enumerate(self.instructions) if opcode_of(text) == "EXIT"}
        after = [way for at in sorted(out) if (way := self.way(at, exits))]
        if not before or not after:
            raise ValueError("sass_budget: a hot loop must be on a way from the kernel's begin to its end.")
        return len(before) - 1 + min(map(len, after))


def parse(text: str) -> Listing:
    listing, number = Listing([], [], {}), 0
    for line in text.splitlines():
        if match := _LINE.match(line):
            number = int(match[1])
        elif match := _LABEL.match(line):
            listing.labels[match[1]] = len(listing.instructions)
        elif match := _INSTRUCTION.match(line):
            listing.instructions.append(match[1])
            listing.lines.append(number)
    return listing


def hot_loops(listing: Listing) -> list[tuple[int, int]]:
    """First and last instruction of the innermost loops that store 16 bytes."""
    positions = range(len(listing.instructions))
    loops = [(target, at) for at in positions if (target := listing.target(at)) is not None and target < at]
    loops = [(a, b) for a, b in loops if any(STORE in line for line in listing.instructions[a : b + 1])]
    return [(a, b) for a, b in loops if not any((a, b) != (c, d) and a <= c and d <= b for c, d in loops)]


STORAGES = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")  # csrc/job.h
INTEGERS = {"h": "uint8", "t": "uint16", "j": "uint32", "m": "uint64"}  # as the linker writes them


def program_of(function: str) -> str:
    """distribution/dtype, from the name of Tile<...>::whole as the linker has it; of the others, that and a word more.

    >>> program_of("_ZN2wi4cuda4TileINS0_7Block32INS0_8Normal32ELNS_7StorageE3EEEE5wholeERKNS_7CudaJobEmm")
    'Normal32/bfloat16'
    """
    if combining := re.search(r"13CombiningTileINS0_\d+([A-Z]\w+?)Ifj(?:(Lb[01])E)?EELNS_7StorageE(\d)", function):
        name = combining[1] + {None: "", "Lb0": "Open", "Lb1": "Clamped"}[combining[2]]
        return f"{name}/{STORAGES[int(combining[3])]} combined"
    return _program_of(function) + (" rows" if "E4rowsE" in function else "")


def _program_of(function: str) -> str:
    values = re.search(r"4TileINS0_(?:7Block(?:32|64)INS0_)?(\d+)(\w+)", function)
    assert values is not None
    name, rest = values[2][: int(values[1])], values[2][int(values[1]) :]
    if storage := re.match(r"[EI]LNS_7StorageE(\d)", rest):
        return f"{name}/{STORAGES[int(storage[1])]}"
    if pattern := re.match(r"I(\w)Lb([01])", rest):
        return f"{('Constant', 'OneHot')[int(pattern[2])]}/{INTEGERS[pattern[1]]}"
    return f"{name}/{'uint32' if name == 'BlockBits' else 'float64'}"


def names_in(ptx: str) -> dict[str, str]:
    """What the labels of strings stand for: names of functions, among others."""
    strings = re.findall(r"^(\$L__info_string\d+):\n((?:\.b8 [\d,]+\n)+)", ptx, re.MULTILINE)
    return {label: bytes(map(int, re.findall(r"\b\d+", data))).decode().rstrip("\0") for label, data in strings}


def whole_of(ptx: Sequence[str], number: int, names: dict[str, str]) -> str:
    """The Tile<...>::whole or rows that a line of the PTX was inlined from: upwards, the next one that is named."""
    for line in reversed(ptx[:number]):
        match = re.search(r"\.loc\b.*function_name (\$\w+)", line)
        if match and re.search(r"(4|13Combining)Tile.*E(5whole|4rows)E", name := names[match[1]]):
            return name
    raise ValueError(f"sass_budget: a loop with a {STORE} must be inlined from Tile<...>::whole, got line {number} of the PTX.")


def loops_of(sass: str, ptx: str) -> Iterator[tuple[str, list[str], int]]:
    """Each program with its hot loop, and how many instructions there are around it."""
    listing, lines, names = parse(sass), ptx.splitlines(), names_in(ptx)
    for begin, end in hot_loops(listing):
        store = next(at for at in range(begin, end + 1) if STORE in listing.instructions[at])
        program = program_of(whole_of(lines, listing.lines[store], names))
        iteration = listing.way(begin, {end}) if " " in program else range(begin, end + 1)
        yield program, [listing.instructions[at] for at in iteration], listing.around(begin, end)


class Cost(NamedTuple):
    """Of one program on one architecture."""

    per_sample: dict[str, float]  # by COLUMNS
    store: int  # bytes that a thread stores in one iteration
    ends: int  # instructions outside of the loop
    share: float  # instructions per sample of a whole share
    faults: tuple[str, ...]  # what a hot loop must not have

    def budgeted(self, column: str) -> float:
        return self.share if column == "share" else self.per_sample[column]

    @property
    def limit(self) -> str:
        return max(COLUMNS, key=lambda column: self.per_sample[column])


class Report(NamedTuple):
    """Of a kernel, or of all, on one architecture."""

    costs: dict[str, Cost]
    registers: int  # of the kernels that fill
    stack: int  # bytes; spills included


def share_bytes() -> int:
    """What a thread stores of the longest share: csrc/cuda/launch.h."""
    text = LAUNCH.read_text()
    groups, tiles = (
        int(match[1]) for name in ("kGroupsPerThread", "kShareTiles") if (match := re.search(rf"{name} = (\d+);", text))
    )
    return 16 * groups * tiles


def cost(loop: Sequence[str], program: str, arch: int, ends: int) -> Cost:
    stores = [name for line in loop if re.match(r"STG?\b", name := opcode_of(line))]
    wide = sum(name.startswith(STORE) for name in stores)
    faults = sorted({name for line in loop if BARRED.fullmatch(name := opcode_of(line).split(".")[0])})
    if len(stores) > wide:
        faults.append("a store of less than 16 bytes")
    bits = int(re.findall(r"/[a-z]+(\d+)", program)[0])
    per_sample = {column: round(total * bits / (wide * 128), 3) for column, total in count(loop, arch).items()}
    share = round(per_sample["issue"] + ends * bits / (8 * share_bytes()), 3)
    return Cost(per_sample, 16 * wide, ends, share, tuple(faults))


_USE = re.compile(r"(\d+) bytes stack frame.*?Used (\d+) registers", re.DOTALL)


def report(sass: str, ptx: str, said: str, arch: int) -> Report:
    """From what nvdisasm, nvcc and `ptxas -v` have said.

    Raises:
        ValueError: a loop whose program or an instruction whose unit is not known; two loops of one program.
    """
    costs: dict[str, Cost] = {}
    for program, loop, ends in loops_of(sass, ptx):
        if program in costs:
            raise ValueError(f"sass_budget: each program must have one loop with a {STORE}, got two of {program}.")
        costs[program] = cost(loop, program, arch, ends)
    use = _USE.search(said)
    if use is None:
        raise ValueError(f"sass_budget: ptxas must say what it used, got:\n{said}")
    return Report(costs, registers=int(use[2]), stack=int(use[1]))


# ---- tools ----------------------------------------------------------------------------------------------------------


def find_nvcc() -> str:
    """Raises Missing."""
    found = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not found:
        raise Missing("no nvcc")
    return found


def find_nvdisasm() -> str:
    """Of the wheel nvidia-cuda-nvdisasm, else of PATH. Raises Missing."""
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        files = []
    found = next((str(file.locate()) for file in files if file.stem == "nvdisasm"), None) or shutil.which("nvdisasm")
    if not found:
        raise Missing("no nvdisasm (pip install nvidia-cuda-nvdisasm)")
    return found


def run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"sass_budget: {' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def release() -> str:
    """nvcc's: a budget is that of one release."""
    return next(line for line in run([find_nvcc(), "--version"]).splitlines() if "release" in line)


def to_ptx(arch: int, source: Path) -> list[str]:
    """The command, without -o: the build's flags, to which CMake adds the first three. Raises Missing."""
    flags = re.search(r"set\(nvcc_flags ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    assert flags is not None
    command = [find_nvcc(), "-ptx", "-std=c++17", "-O3", "-DNDEBUG", *flags[1].split(), "-lineinfo"]
    return [*command, f"-arch=compute_{arch}", f"-I{CSRC}", str(source)]


def disassembled(ptx: Path, arch: int) -> tuple[str, str]:
    """The machine code as text, and what ptxas said. Raises Missing."""
    cubin = BUILD / f"{ptx.stem}.sm_{arch}.cubin"
    cubin.parent.mkdir(parents=True, exist_ok=True)
    said = run([find_nvcc(), "-cubin", f"-arch=sm_{arch}", "-fmad=false", "-lineinfo", "-Xptxas=-v", ptx, "-o", cubin])
    return run([find_nvdisasm(), "-c", "-gp", cubin]), said


def made_ptx(arch: int, source: Path) -> Path:
    """Raises Missing."""
    ptx = BUILD / f"{source.stem}.compute_{arch}.ptx"
    ptx.parent.mkdir(parents=True, exist_ok=True)
    run([*to_ptx(arch, source), "-o", ptx])
    return ptx


def measure(arch: int, to: Callable[[int, Path], Path] = made_ptx) -> Report:
    """Of all kernels: each program's loop, the most registers and stack. Raises Missing."""
    find_nvdisasm()

    def measured(source: Path) -> Report:
        ptx = to(arch, source)
        sass, said = disassembled(ptx, arch)
        return report(sass, ptx.read_text(), said, arch)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return together(list(pool.map(measured, KERNELS)))


def together(reports: Sequence[Report]) -> Report:
    costs = sorted((item for made in reports for item in made.costs.items()), key=lambda item: item[0].split("/")[::-1])
    filling = [made for made in reports if not any(name.endswith(" combined") for name in made.costs)]
    return Report(dict(costs), max(made.registers for made in filling), max(made.stack for made in reports))


# ---- the budget -----------------------------------------------------------------------------------------------------

BUDGETED = ("issue", "heavy", "share")
Numbers = dict[str, dict[str, float]]  # by program and column; the program "kernel" has registers only


def read_budget() -> dict[str, Any]:
    """nvcc: the release; targets: what the project has promised; budget. The last two: Numbers by architecture, as sm_90."""
    content: dict[str, Any] = json.loads(BUDGET.read_text())
    return content


def budgeted() -> list[int]:
    """The architectures of the budget."""
    return [int(key.removeprefix("sm_")) for key in read_budget()["budget"]]


def write_budget(reports: dict[int, Report]) -> None:
    budget: dict[str, Numbers] = {}
    for arch, made in reports.items():
        costs = {name: {column: found.budgeted(column) for column in BUDGETED} for name, found in made.costs.items()}
        budget[f"sm_{arch}"] = {"kernel": {"registers": made.registers}, **costs}
    text = json.dumps({"nvcc": release(), "targets": read_budget()["targets"], "budget": budget}, indent=1)
    BUDGET.write_text(re.sub(r"\{\s+(\"[^{}]*?)\s+\}", lambda match: "{" + " ".join(match[1].split()) + "}", text) + "\n")


def excesses(made: Report, budget: Numbers, targets: Numbers) -> Iterator[str]:
    """What is wrong with the kernel on one architecture, in words."""
    if made.stack:
        yield f"kernel: {made.stack} bytes of stack: something is spilled, or indexed in memory"
    if made.registers > (allowed := budget.get("kernel", {}).get("registers", 0)):
        yield f"kernel: {made.registers} registers, budget {allowed}"
    yield from (f"{name}: no loop with a {STORE}" for name in budget if name not in made.costs and name != "kernel")
    for name, found in made.costs.items():
        yield from (f"{name}: {fault}" for fault in found.faults)
        for column in BUDGETED:
            value, allowed = found.budgeted(column), budget.get(name, {}).get(column, 0.0)
            if value > allowed * (1 + TOLERANCE):
                yield f"{name}: {column} {value:.2f} per sample, budget {allowed:.2f}"
            if value > (target := targets.get(name, {}).get(column, value)):
                yield f"{name}: {column} {value:.2f} per sample, target {target:.2f}"


def table(arch: int, made: Report, budget: Numbers) -> Iterator[str]:
    yield f"sm_{arch}: {made.registers} registers, {made.stack} bytes of stack. Slots and cycles per sample:"
    columns = "".join(f"{column:>8}" for column in COLUMNS)
    budgeted = f"{'budget: issue':>15}{'heavy':>8}{'share':>8}"
    yield f"{'program':<36}{columns}   {'limit':<6}{'share':>8}{budgeted}{'ends':>6}{'bytes stored':>14}"
    for name, found in made.costs.items():
        numbers = "".join(f"{found.per_sample[column]:8.2f}" for column in COLUMNS)
        issue, heavy, share = (budget.get(name, {}).get(column, 0.0) for column in BUDGETED)
        yield (
            f"{name:<36}{numbers}   {found.limit:<6}{found.share:8.2f}{issue:15.2f}{heavy:8.2f}{share:8.2f}"
            f"{found.ends:6}{found.store:14}"
        )


def check(reports: dict[int, Report]) -> list[str]:
    """Prints the tables, and returns what is wrong."""
    budget, wrong = read_budget(), []
    for arch, made in reports.items():
        numbers, targets = (budget[part].get(f"sm_{arch}", {}) for part in ("budget", "targets"))
        print("\n".join(table(arch, made, numbers)), end="\n\n")
        wrong += [f"sm_{arch} {text}" for text in excesses(made, numbers, targets)]
    if wrong and release() != budget["nvcc"]:
        wrong.append(f"the budget is that of {budget['nvcc']}, this is {release()}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", type=int, nargs="+", help="as 90; default: those of the budget")
    parser.add_argument("--write", action="store_true", help="make what is measured the budget")
    arguments = parser.parse_args()
    archs = arguments.arch or budgeted()
    try:
        reports = {arch: measure(arch) for arch in archs}
    except Missing as missing:
        print(f"sass_budget: {missing}", file=sys.stderr)
        return 2
    if arguments.write:
        write_budget(reports)
    wrong = check(reports)
    print("\n".join(wrong) or "within the budget")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
