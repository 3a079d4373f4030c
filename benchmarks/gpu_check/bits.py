"""The GPU's bits against the CPU's: the shortest set that covers every program, layout, alignment and edge of a tile.

A program is a distribution's kind, a dtype, and how values meet what is there; ``PROGRAMS`` has all of them, and a test
compares the table with what distributions lower to. Every program fills every layout in one launch, whose table lies in device
memory, and the sizes around tiles in three, whose tables travel with the launch. Memory is compared as a whole: values, and
what lies around them. Then indices beyond 2^32. A launch that fails is a difference like any other; the check goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.combine import ADD, STORE, Combine, Mode, lerp
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, OneHot, TruncNormal, Uniform
from weightinit_cuda.tensors.boxes import Region

from ..case import dtype_name
from .files import write_json
from .layouts import EDGES, LAYOUTS, Layout, base
from .stages import Status

__all__ = ["PROGRAMS", "Findings", "Program", "run"]

DEVICE = "cuda"
SEED, STREAM = 20, 3
REAL = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
COMPLEX = (torch.complex64, torch.complex128)
COMPLEX = (torch.complex64, torch.complex128)
DISTRIBUTIONS: dict[str, Distribution] = {
    "normal": Normal(0.1, 0.02),
    "normal, subnormal": Normal(0.0, 1e-39),
    "uniform": Uniform(-0.25, 0.5),
    "uniform, negative": Uniform(-1.0, 0.0),
    "uniform, clamped": Uniform(0.1, 0.3),
    "uniform, wide": Uniform(-30000.0, 40000.0),
    "uniform, [0, 8)": Uniform(0.0, 8.0),
    "trunc_normal, central": TruncNormal(0.0, 1.0, -2.0, 2.0),
    "trunc_normal, two-sided": TruncNormal(0.1, 2.0, -5.0, 9.0),
    "trunc_normal, above": TruncNormal(0.0, 1.0, 8.0, 9.0),
    "trunc_normal, below": TruncNormal(0.0, 1.0, -math.inf, -20.0),
    "constant": Constant(0.3),
    "one_hot": OneHot(value=1.0, row=14, period=5, limit=4, offset=2, step=2),
}
MAY_DIFFER = 40  # differences after which the rest is not looked at: all would be one cause


class Program(NamedTuple):
    """What is drawn, in which dtype, and how it meets what is there."""

    label: str
    distribution: Distribution
    dtype: torch.dtype
    combine: Combine = STORE

    @property
    def name(self) -> str:
        how = "" if self.combine is STORE else f", {self.combine.mode.name.lower()}"
        return f"{self.label}/{dtype_name(self.dtype)}{how}"


PROGRAMS: tuple[Program, ...] = (
    *(Program(name, of, dtype) for dtype, (name, of) in product(REAL, DISTRIBUTIONS.items())),
    *(Program(name, of, dtype, how) for how in (ADD, lerp(0.3)) for dtype, (name, of) in product(REAL, DISTRIBUTIONS.items())),
    *(Program(name, DISTRIBUTIONS[name], dtype) for dtype in COMPLEX for name in ("normal", "constant")),
)


class Findings:
    """What was compared, and what differed; kept in the file after every check."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.bytes = 0
        self.differences: list[dict[str, Any]] = []
        self.parts: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []

    def compare(self, what: str, got: Tensor, expected: Tensor) -> None:
        """Two tensors of the same shape, bit for bit; on the CPU, unless both are on the device."""
        expected = expected.contiguous().reshape(-1).view(torch.uint8)
        got = got.detach().to(expected.device).contiguous().reshape(-1).view(torch.uint8)
        self.bytes += expected.numel()
        if not torch.equal(got, expected):
            different = got != expected
            first = int(different.to(torch.uint8).argmax())
            self.differences.append({"what": what, "bytes": int(different.sum()), "of": expected.numel(), "first": first})

    def failed(self, what: str, error: Exception) -> None:
        first = next(iter(str(error).splitlines()), "")
        self.differences.append({"what": what, "error": f"{type(error).__name__}: {first}"})

    def write(self) -> None:
        found = {"bytes": self.bytes, "differences": self.differences, "left_out": self.left_out, "parts": self.parts}
        write_json(self.file, found)


Item = tuple[str, Callable[[Findings], None]]


def run(file: Path, seconds: float) -> tuple[Status, str]:
    """Compares part after part until the time is over, or too much differs."""
    findings, begin = Findings(file), perf_counter()
    for part, items in _parts().items():
        start = perf_counter()
        of = findings.parts[part] = {"items": len(items), "compared": 0, "seconds": 0.0}
        for name, check in items:
            if perf_counter() - begin > seconds or len(findings.differences) > MAY_DIFFER:
                break
            _checked(findings, f"{part}: {name}", check)
            of |= {"compared": of["compared"] + 1, "seconds": round(perf_counter() - start, 3)}
            findings.write()
        said = f"{part}: {of['compared']} of {of['items']} in {of['seconds']} s, {len(findings.differences)} differences"
        print(said, flush=True)
    findings.write()
    return _verdict(findings)


def _checked(findings: Findings, name: str, check: Callable[[Findings], None]) -> None:
    before = len(findings.differences)
    try:
        check(findings)
    except Exception as error:  # whatever a launch raises is a finding
        findings.failed(name, error)
    for difference in findings.differences[before:]:
        print(f"DIFFERS: {difference}", flush=True)


def _verdict(findings: Findings) -> tuple[Status, str]:
    items, done = (sum(part[key] for part in findings.parts.values()) for key in ("items", "compared"))
    what = f"{done} of {items} checks, {findings.bytes / 1e9:.3g} GB compared"
    if findings.differences:
        first = findings.differences[0]
        named = f"{first['what']} {first.get('error', '')}".rstrip()
        return Status.WRONG, f"{len(findings.differences)} differences in {what}; first: {named}"
    left_out = f"; left out: {', '.join(findings.left_out)}" if findings.left_out else ""
    return (Status.FINE if done == items else Status.CUT_SHORT), f"no bit differs: {what}{left_out}"


def _parts() -> dict[str, list[Item]]:
    """All checks, by what they cover, in the order of what they are worth."""
    return {
        "programs in every layout": [(program.name, partial(_layouts, program, LAYOUTS)) for program in PROGRAMS],
        "sizes around tiles": [(program.name, partial(_layouts, program, edges)) for program in PROGRAMS for edges in EDGES],
        "seeds and streams": [("normal", _seeds)],
        "functions of init": [(name, partial(_function, name, shape)) for name, shape in FUNCTIONS.items()],
        "many words": [(program.name, partial(_many_words, program)) for program in PROGRAMS if _is_common(program)],
        "beyond 2^32 elements": list(_beyond()),
    }


# ---- the checks ---------------------------------------------------------------------------------------------------------


def _layouts(program: Program, layouts: Mapping[str, Layout], findings: Findings) -> None:
    """All layouts in one launch; each has memory of its own."""
    filled: list[list[Tensor]] = []
    for device in ("cpu", DEVICE):
        bases = [_memory(layout.elements, program, device) for layout in layouts.values()]
        engine.fill(
            [
                FillJob(layout.view(memory), program.distribution, SEED, STREAM, layout.region, name, program.combine)
                for (name, layout), memory in zip(layouts.items(), bases, strict=True)
            ]
        )
        filled.append(bases)
    for name, expected, got in zip(layouts, *filled, strict=True):
        findings.compare(f"{program.name}, {name}", got, expected)


def _memory(count: int, program: Program, device: str) -> Tensor:
    """Guards; what values are combined with is any bits, infinities and NaN among them."""
    if program.combine.mode is Mode.STORE:
        return base(count, program.dtype, device)
    generator = torch.Generator().manual_seed(count)
    size = (count * program.dtype.itemsize,)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device).view(program.dtype)


def _seeds(findings: Findings) -> None:
    pairs = list(product((0, 1, 2**63, 2**64 - 1), (0, 2**32, 2**64 - 1)))
    made = []
    for device in ("cpu", DEVICE):
        tensors = [torch.empty(1001, device=device) for _ in pairs]
        engine.fill([FillJob(tensor, Normal(0.0, 1.0), *pair) for tensor, pair in zip(tensors, pairs, strict=True)])
        made.append(tensors)
    for pair, expected, got in zip(pairs, *made, strict=True):
        findings.compare(f"seed {pair[0]}, stream {pair[1]}", got, expected)


MATRIX, KERNEL = (300, 201), (64, 32, 3, 3)
FUNCTIONS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "kaiming_normal_", "eye_"), MATRIX),
    **dict.fromkeys(("kaiming_uniform_", "xavier_normal_", "dirac_", "zeros_", "ones_"), KERNEL),
}
SEEDLESS = ("eye_", "dirac_", "zeros_", "ones_")


def _function(name: str, shape: tuple[int, ...], findings: Findings) -> None:
    """A drop-in call: the short way to the kernels, for one plain tensor."""
    seed = {} if name in SEEDLESS else {"seed": SEED}
    expected, got = (getattr(wi.init, name)(torch.empty(shape, device=device), **seed) for device in ("cpu", DEVICE))
    findings.compare(name, got, expected)


MANY = 2**27


def _is_common(program: Program) -> bool:
    common = ("normal", "uniform", "trunc_normal, central", "trunc_normal, two-sided")
    return program.dtype == torch.float32 and program.combine is STORE and program.label in common


def _many_words(program: Program, findings: Findings) -> None:
    """One word in 32, and so nearly all branches of the transforms."""
    made = []
    for device in ("cpu", DEVICE):
        tensor = torch.empty(MANY, dtype=program.dtype, device=device)
        engine.fill([FillJob(tensor, program.distribution, SEED, STREAM)])
        made.append(tensor)
    findings.compare(program.name, made[1], made[0])


FAR = 2**32  # the first index that does not fit into 32 bits
BEYOND = FAR + 2**20 + 5  # elements
PART = 2**29
PIECE = 50_001
ROWS, COLUMNS = 65537, 65539  # of a matrix of more than 2^32 elements


def _beyond() -> Iterator[Item]:
    yield "aligned float8", partial(_consecutive, torch.float8_e4m3fn, 0)
    yield "misaligned bfloat16", partial(_consecutive, torch.bfloat16, 1)
    yield "strided float8", _strided


def _consecutive(dtype: torch.dtype, shift: int, findings: Findings) -> None:
    """Pieces against the CPU; then every byte against fills of parts on the device, whose indices are small."""
    what = f"beyond 2^32 elements of {dtype_name(dtype)}"
    if not _fits(findings, what, (BEYOND + 2 * PART) * dtype.itemsize):
        return
    distribution = DISTRIBUTIONS["normal"]
    tensor = torch.empty(BEYOND + shift, dtype=dtype, device=DEVICE)[shift:]
    engine.fill([FillJob(tensor, distribution, SEED, STREAM)])
    for start in (0, FAR // 2 - 777, FAR - 777, BEYOND - PIECE):
        piece = torch.empty(PIECE, dtype=dtype)
        engine.fill([FillJob(piece, distribution, SEED, STREAM, Region((BEYOND,), (start,)))])
        findings.compare(f"{what}, from {start}", tensor[start : start + PIECE], piece)
    for start in range(0, BEYOND, PART):
        part = tensor[start : start + PART]
        again = torch.empty(part.shape, dtype=dtype, device=DEVICE)
        engine.fill([FillJob(again, distribution, SEED, STREAM, Region((BEYOND,), (start,)))])
        findings.compare(f"{what}, the part from {start}", part, again)


def _strided(findings: Findings) -> None:
    """Rows of a matrix with a gap after each."""
    dtype, distribution = torch.float8_e5m2, DISTRIBUTIONS["uniform"]
    if not _fits(findings, "a strided matrix beyond 2^32 elements", 2 * ROWS * (COLUMNS + 1)):
        return
    memory = base(ROWS * (COLUMNS + 1), dtype, DEVICE).view(ROWS, COLUMNS + 1)
    gaps = memory[:, COLUMNS].clone()
    engine.fill([FillJob(memory[:, :COLUMNS], distribution, SEED, STREAM)])
    for row in (0, ROWS // 2, ROWS - 1):
        expected = torch.empty((1, COLUMNS), dtype=dtype)
        engine.fill([FillJob(expected, distribution, SEED, STREAM, Region((ROWS, COLUMNS), (row, 0)))])
        findings.compare(f"strided beyond 2^32, row {row}", memory[row : row + 1, :COLUMNS], expected)
    findings.compare("strided beyond 2^32, the gaps", memory[:, COLUMNS], gaps)


def _fits(findings: Findings, what: str, needed: int) -> bool:
    free, _ = torch.cuda.mem_get_info()
    if needed > free:
        findings.left_out.append(f"{what}: needs {needed >> 20} MiB of GPU memory, {free >> 20} are free")
    return needed <= free
