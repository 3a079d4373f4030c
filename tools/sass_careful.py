"""What the careful path of csrc/cuda/fill_kernel.h costs, which fills tensors that are not consecutive or not aligned.

It is one body for all programs, so that no loop is a program's own: the cost is the shortest way through each_block()
(csrc/cuda/tiles.h) that leads past the instructions of the program and of the store.

    misaligned  consecutive memory that begins elsewhere than on a 16-byte boundary
    rows        runs of elements one stride apart: odd rows, transposed tensors; a thread takes a piece of a run at once
    runs        runs whose elements lie in dimensions of their own

Blocks at the ends of a run, of which only some elements are stored, are dearer and rare.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sass_listing import COLUMNS, Listing, Origin, count, opcode_of

LAUNCH = Path(__file__).resolve().parents[1] / "csrc" / "cuda" / "launch.h"
LAYOUTS = ("misaligned", "rows", "runs")
_KERNEL = re.compile(r"11fill_kernelILi(\d)E")
_PROGRAM = re.compile(r"\d((?:UniformWide|Uniform|Normal|TruncNormalCentral|TruncNormal)(?:32|64))I[fd][jm](Lb[01])?E")


def piece_blocks() -> int:
    """Blocks of a piece: csrc/cuda/launch.h."""
    match = re.search(r"kPieceBlocks = (\d+);", LAUNCH.read_text())
    assert match is not None
    return int(match[1])


def program_of(function: str) -> str:
    """The distribution that an instruction belongs to; "": none.

    >>> program_of("_ZNK2wi4cuda9Uniform32IfjLb1EEclEPKjPf")
    'Uniform32Clamped'
    """
    match = _PROGRAM.search(function)
    return match[1] + {None: "", "Lb0": "Open", "Lb1": "Clamped"}[match[2]] if match else ""


class Body(NamedTuple):
    """The loop over a thread's pieces, and the one over the blocks of a piece, which may be the same."""

    listing: Listing
    origins: Sequence[Origin]
    outer: range
    inner: range

    def places(self, *words: str) -> set[int]:
        return {at for at in self.outer if any(word in self.origins[at].function for word in words)}

    def way(self, begin: int, marks: Sequence[Collection[int]]) -> list[int]:
        """Through one of each of the marks, in order."""
        found = [begin]
        for mark in marks:
            if found[-1] in mark:
                continue
            step = self.listing.way(found[-1], mark, self.outer)
            if not step:
                raise ValueError("sass_careful: each layout and program must have a way through each_block().")
            found += step[1:]
        return found

    def stores(self) -> list[list[int]]:
        """Of whole blocks, of some elements of a run with one stride, and of one without: the stores of single elements."""
        single = [
            at
            for at in self.inner
            if "store_block" in self.origins[at].function
            and "clEim" in self.origins[at].function
            and opcode_of(self.listing.instructions[at]).startswith("ST")
        ]
        lines = sorted({self.origins[at].called_at for at in single})
        if len(lines) != 3:
            raise ValueError(f"sass_careful: store_block() must store single elements in three places, got lines {lines}.")
        return [[at for at in single if self.origins[at].called_at == line] for line in lines]


def body_of(listing: Listing, places: Sequence[Origin]) -> Body | None:
    """None: the kernel has no careful path of this kind."""
    stores = [at for at, origin in enumerate(places) if "store_block" in origin.function]
    if not stores:
        return None
    loops = sorted((loop for loop in listing.loops() if min(stores) in loop and max(stores) in loop), key=len)
    positions = [at for at, origin in enumerate(places) if "piece_of" in origin.function]
    outer = next(loop for loop in loops if all(at in loop for at in positions))
    return Body(listing, places, outer, loops[0])


def ways(body: Body) -> Iterator[tuple[str, str, list[int], list[int]]]:
    """Program, layout, the instructions of a block, and those of a piece around them."""
    whole, _, in_runs = body.stores()
    nested = body.inner != body.outer
    after = []
    if nested:
        out = next(at for at in body.listing.successors(body.inner[-1]) if at not in body.inner)
        after = body.way(out, [{body.outer[-1]}])
    programs: dict[str, int] = {}  # of each, the last instruction
    for at in body.inner:
        if program := program_of(body.origins[at].function):
            programs[program] = at
    # The shortest way of all is that of consecutive memory: it computes no place in a region.
    straight = set(body.way(body.outer[0], [{body.inner[0]}, {min(programs.values())}]))
    region = {max(body.places("piece_of") - straight)}
    for layout in LAYOUTS:
        marks = [] if layout == "misaligned" else [region]
        around = [*body.way(body.outer[0], [*marks, {body.inner[0]}])[:-1], *after] if nested else []
        for program, last in programs.items():
            stores = [body.places("6in_run"), {in_runs[-1]}] if layout == "runs" else [{whole[-1]}]
            through = [*([] if nested else marks), {last}, *stores, {body.inner[-1]}]
            yield program, layout, body.way(body.inner[0], through), around


def costs(listing: Listing, places: Sequence[Origin], ptx: str, arch: int) -> dict[str, dict[str, float]]:
    """Slots and cycles per sample, by program with its layout and by column."""
    body = body_of(listing, places)
    if body is None:
        return {}
    kernel = _KERNEL.search(ptx)
    assert kernel is not None
    size = int(kernel[1])
    per_block, found = 2 if size == 8 else 4, {}
    for program, layout, block, piece in ways(body):
        blocks = piece_blocks() if layout == "rows" and piece else 1
        of_block, of_piece = (count([listing.instructions[at] for at in way], arch) for way in (block, piece))
        found[f"{program}/{8 * size} bits {layout}"] = {
            column: round((of_block[column] + of_piece[column] / blocks) / per_block, 3) for column in COLUMNS
        }
    return found
