"""Machine code of the kernels as data: instructions with the units that execute them, the ways through them, and the functions
of C++ that they come from. What it is for: sass_budget.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

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
    raise ValueError(f"sass_budget: the unit of {opcode} must be known. Add it to _OPCODES in tools/sass_listing.py.")


def count(loop: Sequence[str], arch: int) -> dict[str, float]:
    """Slots and cycles of a loop's instructions, by column."""
    total = {"": 0.0, **dict.fromkeys(COLUMNS, 0.0), "issue": float(len(loop))}
    for instruction in loop:
        unit, cycles = unit_and_cycles(opcode_of(instruction), arch)
        total[unit] += cycles
    # Of the float32 units one half is the multiplier's, so the work spreads; up to sm_80 there is no other half.
    both = total["heavy"] + total["fma"] if arch <= 80 else total["heavy"] / 2 + total["fma"]
    return {column: total[column] for column in COLUMNS} | {"fma": max(total["heavy"], both)}


# ---- ways -----------------------------------------------------------------------------------------------------------

_LABEL = re.compile(r"^(\.L\w+):")
_LINE = re.compile(r'^\s*//## File "\.nv_debug_ptx_txt", line (\d+)')
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_TARGET = re.compile(r"\bBRA\b.*`\(([^)]+)\)")
_PLACE = re.compile(r"\.loc\s+\d+ \d+ \d+(?:, function_name (\$\w+).*?inlined_at \d+ (\d+))?")
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

    def loops(self) -> list[range]:
        """From where a jump backwards leads to that jump, of each."""
        jumps = ((self.target(at), at) for at in range(len(self.instructions)))
        return [range(to, at + 1) for to, at in jumps if to is not None and to < at]

    def way(self, begin: int, ends: Collection[int], within: Collection[int] | None = None) -> list[int]:
        """The fewest instructions from one to any of some others, both included; all `within` some. Empty: there is no way."""
        before, now = {begin: -1}, [begin]
        while now and not (found := [at for at in now if at in ends]):
            following = {
                n: at for at in now for n in self.successors(at) if n not in before and (within is None or n in within)
            }
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


# ---- names ----------------------------------------------------------------------------------------------------------


def names_in(ptx: str) -> dict[str, str]:
    """What the labels of strings stand for: names of functions, among others."""
    strings = re.findall(r"^(\$L__info_string\d+):\n((?:\.b8 [\d,]+\n)+)", ptx, re.MULTILINE)
    return {label: bytes(map(int, re.findall(r"\b\d+", data))).decode().rstrip("\0") for label, data in strings}


class Origin(NamedTuple):
    """Where an instruction was inlined from."""

    function: str  # as the linker has it; "": the kernel itself
    called_at: int  # line of the call


def origins(listing: Listing, ptx: str) -> list[Origin]:
    """Of each instruction."""
    names, now, by_line = names_in(ptx), Origin("", 0), [Origin("", 0)]
    for line in ptx.splitlines():
        if match := _PLACE.search(line):
            now = Origin(names[match[1]], int(match[2])) if match[1] else Origin("", 0)
        by_line.append(now)
    return [by_line[number] for number in listing.lines]
