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

What is not consecutive or not aligned takes a path that all programs share: sass_careful.py.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import sass_careful
from sass_listing import BARRED, COLUMNS, Listing, Origin, count, names_in, opcode_of, origins, parse

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


# ---- loops and their programs ---------------------------------------------------------------------------------------


def hot_loops(listing: Listing) -> list[range]:
    """The innermost loops that store 16 bytes."""
    loops = [loop for loop in listing.loops() if any(STORE in listing.instructions[at] for at in loop)]
    return [a for a in loops if not any(a != b and a.start <= b.start and b.stop <= a.stop for b in loops)]


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


def whole_of(ptx: Sequence[str], number: int, names: dict[str, str]) -> str:
    """The Tile<...>::whole or rows that a line of the PTX was inlined from: upwards, the next one that is named."""
    for line in reversed(ptx[:number]):
        match = re.search(r"\.loc\b.*function_name (\$\w+)", line)
        if match and re.search(r"(4|13Combining)Tile.*E(5whole|4rows)E", name := names[match[1]]):
            return name
    raise ValueError(f"sass_budget: a loop with a {STORE} must be inlined from Tile<...>::whole, got line {number} of the PTX.")


def loops_of(listing: Listing, ptx: str) -> Iterator[tuple[str, list[str], int]]:
    """Each program with its hot loop, and how many instructions there are around it."""
    lines, names = ptx.splitlines(), names_in(ptx)
    for loop in hot_loops(listing):
        begin, end = loop[0], loop[-1]
        store = next(at for at in loop if STORE in listing.instructions[at])
        program = program_of(whole_of(lines, listing.lines[store], names))
        iteration = listing.way(begin, {end}) if " " in program else loop
        yield program, [listing.instructions[at] for at in iteration], listing.around(begin, end)


def loop_in(listing: Listing, places: Sequence[Origin], function: str) -> int:
    """Instructions of the longest loop that ends with one of a function; 0: there is none."""
    return max((len(loop) for loop in listing.loops() if function in places[loop[-1]].function), default=0)


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
    careful: dict[str, dict[str, float]]  # sass_careful.costs()
    search: int  # instructions of a step of the search in the table, job_of() of csrc/cuda/tiles.h
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
    listing, costs = parse(sass), dict[str, Cost]()
    for program, loop, ends in loops_of(listing, ptx):
        if program in costs:
            raise ValueError(f"sass_budget: each program must have one loop with a {STORE}, got two of {program}.")
        costs[program] = cost(loop, program, arch, ends)
    use = _USE.search(said)
    if use is None:
        raise ValueError(f"sass_budget: ptxas must say what it used, got:\n{said}")
    places = origins(listing, ptx)
    careful, search = sass_careful.costs(listing, places, ptx, arch), loop_in(listing, places, "6job_ofE")
    return Report(costs, careful, search, registers=int(use[2]), stack=int(use[1]))


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
    careful = {name: columns for made in reports for name, columns in made.careful.items()}
    search, stack = max(made.search for made in reports), max(made.stack for made in reports)
    return Report(dict(costs), careful, search, max(made.registers for made in filling), stack)


# ---- the budget -----------------------------------------------------------------------------------------------------

BUDGETED = ("issue", "heavy", "share")
Numbers = dict[str, dict[str, float]]  # by program and column; the program "kernel" has kernel_numbers()


def read_budget() -> dict[str, Any]:
    """nvcc: the release; targets: what the project has promised; budget. The last two: Numbers by architecture, as sm_90."""
    content: dict[str, Any] = json.loads(BUDGET.read_text())
    return content


def budgeted() -> list[int]:
    """The architectures of the budget."""
    return [int(key.removeprefix("sm_")) for key in read_budget()["budget"]]


def kernel_numbers(made: Report) -> dict[str, float]:
    return {"registers": made.registers, "search": made.search}


def budgeted_numbers(made: Report) -> Numbers:
    hot = {name: {column: found.budgeted(column) for column in BUDGETED} for name, found in made.costs.items()}
    return hot | {name: {column: columns[column] for column in BUDGETED[:2]} for name, columns in made.careful.items()}


def write_budget(reports: dict[int, Report]) -> None:
    budget: dict[str, Numbers] = {}
    for arch, made in reports.items():
        budget[f"sm_{arch}"] = {"kernel": kernel_numbers(made), **budgeted_numbers(made)}
    text = json.dumps({"nvcc": release(), "targets": read_budget()["targets"], "budget": budget}, indent=1)
    BUDGET.write_text(re.sub(r"\{\s+(\"[^{}]*?)\s+\}", lambda match: "{" + " ".join(match[1].split()) + "}", text) + "\n")


def excesses(made: Report, budget: Numbers, targets: Numbers) -> Iterator[str]:
    """What is wrong with the kernel on one architecture, in words."""
    if made.stack:
        yield f"kernel: {made.stack} bytes of stack: something is spilled, or indexed in memory"
    for column, value in kernel_numbers(made).items():
        if value > (allowed := budget.get("kernel", {}).get(column, 0)):
            yield f"kernel: {column} {value}, budget {allowed}"
    numbers = budgeted_numbers(made)
    yield from (f"{name}: no loop with a {STORE}" for name in budget if name not in numbers and name != "kernel")
    yield from (f"{name}: {fault}" for name, found in made.costs.items() for fault in found.faults)
    for name, columns in numbers.items():
        for column, value in columns.items():
            allowed = budget.get(name, {}).get(column, 0.0)
            if value > allowed * (1 + TOLERANCE):
                yield f"{name}: {column} {value:.2f} per sample, budget {allowed:.2f}"
            if value > (target := targets.get(name, {}).get(column, value)):
                yield f"{name}: {column} {value:.2f} per sample, target {target:.2f}"


def table(arch: int, made: Report, budget: Numbers) -> Iterator[str]:
    kernel = f"{made.registers} registers, {made.stack} bytes of stack, {made.search} instructions a step of the search"
    yield f"sm_{arch}: {kernel}. Slots and cycles per sample:"
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


def careful_table(made: Report, budget: Numbers) -> Iterator[str]:
    """Slots per sample, as multiples of those of consecutive aligned memory."""
    yield f"Not consecutive or not aligned: {'':<6}" + "".join(f"{layout:>24}" for layout in sass_careful.LAYOUTS)
    names = [name.rsplit(" ", 1)[0] for name in made.careful if name.endswith(sass_careful.LAYOUTS[0])]
    for name in names:
        program, bits = name.split("/")[0], int(re.findall(r"/(\d+)", name)[0])
        either = f"(?:{program}|BlockUniform16)" if program == "Uniform32Clamped" else program
        same = (found for key, found in made.costs.items() if re.fullmatch(rf"{either}/b?float{bits}\w*", key))
        consecutive = max(found.per_sample["issue"] for found in same)
        keys = [f"{name} {layout}" for layout in sass_careful.LAYOUTS]
        slots = [(made.careful[key]["issue"], budget.get(key, {}).get("issue", 0.0)) for key in keys]
        yield f"{name:<38}" + "".join(f"{now:9.2f} {now / consecutive:5.2f}x ({was:6.2f})" for now, was in slots)


def check(reports: dict[int, Report]) -> list[str]:
    """Prints the tables, and returns what is wrong."""
    budget, wrong = read_budget(), []
    for arch, made in reports.items():
        numbers, targets = (budget[part].get(f"sm_{arch}", {}) for part in ("budget", "targets"))
        print("\n".join([*table(arch, made, numbers), "", *careful_table(made, numbers)]), end="\n\n")
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
