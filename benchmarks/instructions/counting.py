"""Runs the driver under callgrind, by steps or under qemu, reads what was counted, compares it with the committed counts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.numerics.lowering import lower

__all__ = ["COUNTS", "ISAS", "Counted", "Unavailable", "compiler_of", "count", "deviations", "recorded", "rows"]

COUNTS = Path(__file__).parent / "counts.json"
TILE = 768  # values of a tile in 32 bits, two of 64
VALUES = TILE
DIGITS = 3  # after the point
TOLERANCE = 0.02  # relative; the same compiler makes the same code, so this forgives the C library's part alone

LAWS: dict[str, Distribution] = {
    "uniform": Uniform(0.0, 1.0),
    "normal": Normal(0.0, 1.0),
    "trunc_normal": TruncNormal(0.0, 1.0, -2.0, 2.0),
    "trunc_normal, one-sided": TruncNormal(0.0, 1.0, 1.0, 3.0),
}
STORAGES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)  # of csrc/job.h
PARAMETERS, INTEGERS = 8, 6  # of csrc/job.h's Transform
QEMU = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")


class Unavailable(Exception):
    """An instruction set cannot be counted here; the message says why."""


class Counted(NamedTuple):
    """Instructions per value by kernel, the compiler that made them, and how they were counted."""

    compiler: str
    how: str
    instructions: dict[str, float]


def rows() -> dict[str, str]:
    """Kernel -> its row of the driver's file."""
    found = {}
    for law, distribution in LAWS.items():
        for number, dtype in enumerate(STORAGES):
            transform = lower(distribution, dtype)
            parameters = [float(x).hex() for x in (*transform.params, *[0.0] * PARAMETERS)[:PARAMETERS]]
            integers = [str(x) for x in (*transform.integers, *[0] * INTEGERS)[:INTEGERS]]
            name = f"{law} {str(dtype).removeprefix('torch.')}"
            found[name] = " ".join([_word(name), str(number), str(int(transform.kind)), *parameters, *integers])
    return found


def count(isa: str, folder: Path) -> Counted:
    """Counts all kernels of an instruction set.

    Args:
        isa: a key of ISAS.
        folder: of the CMake build that has count_instructions.

    Raises:
        Unavailable: this machine cannot run or count them.
    """
    how, counted = ISAS[isa]
    names = rows()
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch, "rows.txt")
        table.write_text("\n".join(names.values()) + "\n", encoding="ascii")
        totals = counted(folder / "count_instructions", table, isa, Path(scratch))
    per_value = {name: _per_value(totals[_word(name)]) for name in names if _word(name) in totals}
    return Counted(compiler_of(folder), how, per_value)


def compiler_of(folder: Path) -> str:
    """The first line that the build's compiler says of itself."""
    cache = (folder / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", cache, re.MULTILINE)
    said = subprocess.run([found[1] if found else "c++", "--version"], capture_output=True, text=True, check=True).stdout
    return re.sub(r"^\S+", "g++" if "Free Software" in said else "c++", said.splitlines()[0])


def recorded() -> dict[str, Counted]:
    """The committed counts by instruction set."""
    isas = json.loads(COUNTS.read_text(encoding="utf-8"))["isas"]
    return {isa: Counted(entry["compiler"], entry["how"], entry["instructions"]) for isa, entry in isas.items()}


def deviations(found: Mapping[str, float], known: Mapping[str, float], tolerance: float = TOLERANCE) -> list[str]:
    """Kernels whose count differs by more than the tolerance, or that only one of both has."""
    lines = [f"{name}: counted in one of both only" for name in sorted(set(found) ^ set(known))]
    for name in (name for name in known if name in found):
        if abs(found[name] - known[name]) > tolerance * known[name]:
            lines.append(f"{name}: {found[name]:g} instructions per value, {known[name]:g} are recorded")
    return lines


def _word(name: str) -> str:
    return re.sub(r"[^\w]+", "_", name)


def _per_value(totals: Sequence[int]) -> float:
    once, twice = totals
    return round((twice - once) / VALUES, DIGITS)


Totals = dict[str, list[int]]  # kernel -> instructions of VALUES values, and of twice as many


def _run(command: Sequence[str | Path]) -> str:
    program = str(command[0])
    if shutil.which(program) is None:
        raise Unavailable(f"{Path(program).name} is not installed")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise Unavailable(f"{Path(program).name} failed with {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout


def _by_callgrind(program: Path, table: Path, isa: str, scratch: Path) -> Totals:
    """A dump for each end of counting, in order; the last one, of the program's end, has no trigger."""
    _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out", program, table, isa, str(VALUES)])
    totals: Totals = {}
    for dump in sorted(scratch.glob("out.*"), key=lambda path: int(path.suffix[1:])):
        text = dump.read_text(encoding="utf-8")
        name, total = (
            re.search(r"^desc: Trigger: Client Request: (\w+)$", text, re.MULTILINE),
            re.search(r"^totals: (\d+)", text, re.M),
        )
        if name and total:
            totals.setdefault(name[1], []).append(int(total[1]))
    if not totals:
        raise Unavailable("the driver was compiled without valgrind's headers")
    return totals


def _by_steps(program: Path, table: Path, isa: str, scratch: Path) -> Totals:
    if isa == "avx512" and "avx512dq" not in _cpu_flags():
        raise Unavailable("this CPU has no AVX-512")
    totals: Totals = {}
    for line in _run([program, table, isa, str(VALUES), "--step"]).splitlines():
        name, total = line.split()
        if int(total) < 0:
            raise Unavailable("ptrace is not allowed here")
        totals.setdefault(name, []).append(int(total))
    return totals


def _by_qemu(program: Path, table: Path, isa: str, scratch: Path) -> Totals:
    """One line of the log an instruction; lines between those of the two marker functions are counted."""
    log = scratch / "log"
    names = _run([*QEMU, "-singlestep", "-d", "exec,nochain", "-D", log, program, table, isa, str(VALUES)]).split()
    counts, counting = [], False
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith(" begin_count\n"):
                if not counting:
                    counts.append(0)
                counting = True
            elif line.endswith(" end_count\n"):
                counting = False
            elif counting:
                counts[-1] += 1
    return {name: counts[2 * i : 2 * i + 2] for i, name in enumerate(names)}


def _cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()


# How each instruction set is counted. NEON's program is another one, made by the cross compiler.
ISAS: dict[str, tuple[str, Callable[[Path, Path, str, Path], Totals]]] = {
    "scalar": ("callgrind", _by_callgrind),
    "avx2": ("callgrind", _by_callgrind),
    "avx512": ("single steps", _by_steps),
    "neon": ("qemu", _by_qemu),
}
