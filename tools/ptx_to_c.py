"""PTX of one kernel -> C that does the same for one thread, so that what nvcc made can run where there is no GPU.

    python tools/ptx_to_c.py kernel.ptx > kernel.c

The C is one function, ``void ptx_thread(const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid)``. Whoever
runs it provides what :data:`PRELUDE` declares: a look at every access to memory, and the approximate instructions.
Covered is what straight integer and floating-point code needs: no calls, no shared or local memory, no barriers. Whatever is
not in :data:`OPERATIONS` or handled by name is an error that says so, never a guess.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PRELUDE = """\
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

extern void gpu_read(uint64_t address, uint32_t bytes);
extern void gpu_write(uint64_t address, uint32_t bytes);
extern float gpu_rsqrt_approx(float x);
extern float gpu_rcp_approx(float x);

static inline float as_f32(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
static inline double as_f64(uint64_t b) { double f; memcpy(&f, &b, 8); return f; }
static inline uint32_t bits_f32(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }
static inline uint64_t bits_f64(double f) { uint64_t b; memcpy(&b, &f, 8); return b; }
#define MEMORY(type) \\
    static inline type load_##type(uint64_t at) { type v; memcpy(&v, (const void*)at, sizeof v); return v; } \\
    static inline void store_##type(uint64_t at, type v) { memcpy((void*)at, &v, sizeof v); }
MEMORY(uint8_t) MEMORY(uint16_t) MEMORY(uint32_t) MEMORY(uint64_t) MEMORY(float) MEMORY(double)
MEMORY(int8_t) MEMORY(int16_t) MEMORY(int32_t) MEMORY(int64_t)
static inline uint64_t field(uint64_t c, uint64_t d) { return (d > 63 ? ~0ull : (1ull << d) - 1) << (c > 63 ? 63 : c); }
static inline uint64_t bfi(uint64_t a, uint64_t b, uint32_t c, uint32_t d, uint32_t width) {
    c &= 255, d &= 255;
    if (c >= width) return b;
    const uint64_t mask = field(c, d);
    return (b & ~mask) | (a << c & mask);
}
static inline uint64_t bfe(uint64_t a, uint32_t c, uint32_t d) {
    c &= 255, d &= 255;
    return c > 63 ? 0 : a >> c & field(0, d);
}
static inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t c) {
    const uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t pick = c >> 4 * i & 15, byte = bytes >> 8 * (pick & 7) & 255;
        r |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return r;
}
static inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t lut) {
    uint32_t r = 0;
    for (int i = 0; i < 8; ++i)
        if (lut >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}
static inline uint32_t bf16(float f) {  // to nearest even
    const uint32_t b = bits_f32(f);
    return f != f ? 0x7FFF : (b + 0x7FFF + (b >> 16 & 1)) >> 16;
}
// |f| in the format with so many mantissa bits and its lowest exponent, to nearest even: its units counted from 0.
static inline uint32_t units(float f, int mantissa, int lowest) {
    const uint32_t a = bits_f32(f) & 0x7FFFFFFF;
    const int e = (int)(a >> 23) - 127 > lowest ? (int)(a >> 23) - 127 : lowest;
    const double scaled = as_f32(a) * as_f64((uint64_t)(1023 + mantissa - e) << 52);
    return ((uint32_t)(e - lowest) << mantissa) + (uint32_t)((scaled + 0x1p52) - 0x1p52);
}
static inline uint32_t f16(float f) {
    const float a = as_f32(bits_f32(f) & 0x7FFFFFFF);
    return f != f ? 0x7FFF : (bits_f32(f) >> 16 & 0x8000) | (a < 65536 ? units(a, 10, -14) : 0x7C00);
}
static inline float from_f16(uint32_t h) {
    const uint32_t e = h >> 10 & 31, m = h & 1023, sign = h >> 15 << 31;
    if (e == 31) return as_f32(m ? 0x7FFFFFFF : sign | 0x7F800000);
    const float a = e ? as_f32((e + 112) << 23 | m << 13) : (float)m * 0x1p-24f;
    return as_f32(sign | bits_f32(a));
}
static inline uint32_t f8(float f, int mantissa, int lowest, float largest) {
    const float a = as_f32(bits_f32(f) & 0x7FFFFFFF);
    return f != f ? 0x7F : (bits_f32(f) >> 24 & 0x80) | units(a < largest ? a : largest, mantissa, lowest);
}
// Minimum and maximum: -0 is less than +0, NaN is the other operand, and if both are, the canonical NaN.
static inline float min_f32(float a, float b) {
    return a != a ? b != b ? as_f32(0x7FFFFFFF) : b : b != b || a < b || (a == b && bits_f32(a) >> 31) ? a : b;
}
static inline float max_f32(float a, float b) {
    return a != a ? b != b ? as_f32(0x7FFFFFFF) : b : b != b || a > b || (a == b && !(bits_f32(a) >> 31)) ? a : b;
}
static inline int32_t order(uint32_t half) { return half & 0x8000 ? -1 - (int32_t)(half & 0x7FFF) : (int32_t)half; }
static inline uint32_t pick(uint32_t a, uint32_t b, bool larger, uint32_t infinity) {
    const bool a_is_nan = (a & 0x7FFF) > infinity, b_is_nan = (b & 0x7FFF) > infinity;
    if (a_is_nan || b_is_nan) return !b_is_nan ? b : !a_is_nan ? a : 0x7FFF;
    return order(a) > order(b) == larger ? a : b;
}
static inline uint32_t pick2(uint32_t a, uint32_t b, bool larger, uint32_t infinity) {
    return pick(a >> 16, b >> 16, larger, infinity) << 16 | pick(a & 0xFFFF, b & 0xFFFF, larger, infinity);
}
"""


class PtxError(ValueError):
    """Text that is not understood."""


class Instruction(NamedTuple):
    line: int
    guard: str  # %p or !%p, or empty
    opcode: str  # with all its modifiers
    operands: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.line}: {f'@{self.guard} ' if self.guard else ''}{self.opcode} {', '.join(self.operands)}"


class Label(NamedTuple):
    name: str


class Kernel(NamedTuple):
    target: str
    param: str  # its one parameter, a structure
    param_bytes: int
    registers: dict[str, tuple[str, int]]  # prefix -> (type, how many)
    tables: dict[str, tuple[str, ...]]  # of brx.idx: name -> labels
    body: tuple[Instruction | Label, ...]

    @property
    def instructions(self) -> Iterator[Instruction]:
        return (item for item in self.body if isinstance(item, Instruction))


# ---- reading --------------------------------------------------------------------------------------------------------

_PARAM = re.compile(r"\.param\s+\.align\s+\d+\s+\.b8\s+(\w+)\[(\d+)\]")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%[a-z]+)<(\d+)>;")
_TABLE = re.compile(r"(\$\w+):\s*\.branchtargets\s*([^;]*);")
_LABEL = re.compile(r"(\$\w+):")
_INSTRUCTION = re.compile(r"(?:@(!?%p\d+)\s+)?([a-z][\w.:]*)\s*([^;]*);")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^]]*\]|[^,\s]+")
_IGNORED = re.compile(r"\.(pragma|loc|file)\b.*|[{}]")
_HEADER = re.compile(r"\.(version|target|address_size|visible|maxntid|minnctapersm|param|reqntid)\b.*|[()]")


def parse(text: str) -> Kernel:
    """The one kernel of a PTX file.

    Raises:
        PtxError: a line that is not understood, or not exactly one kernel with one structure as its parameter.
    """
    if text.count(".entry") != 1 or ".func" in text:
        raise PtxError("not exactly one .entry and no .func")
    target = re.search(r"^\.target\s+(\w+)", text, re.M)
    params = _PARAM.findall(text)
    if target is None or len(params) != 1:
        raise PtxError("no .target, or not exactly one .param")
    registers: dict[str, tuple[str, int]] = {}
    tables: dict[str, tuple[str, ...]] = {}
    body: list[Instruction | Label] = []
    inside = False
    code, _, _ = text.partition("\n\t.section")  # names and lines for debuggers follow
    for number, full in enumerate(code.split("\n"), 1):
        line = full.split("//")[0].strip()
        if not inside:
            if line and not _HEADER.fullmatch(line) and line != "{":
                raise PtxError(f"line {number}: unknown {line!r}")
            inside = line == "{"
        elif not line or _IGNORED.fullmatch(line):
            continue
        elif match := _REGISTERS.fullmatch(line):
            registers[match[2]] = match[1], int(match[3])
        elif match := _TABLE.fullmatch(line):
            tables[match[1]] = tuple(re.split(r"[,\s]+", match[2].strip()))
        elif match := _LABEL.fullmatch(line):
            body.append(Label(match[1]))
        elif match := _INSTRUCTION.fullmatch(line):
            body.append(Instruction(number, match[1] or "", match[2], tuple(_OPERAND.findall(match[3]))))
        else:
            raise PtxError(f"line {number}: unknown {line!r}")
    return Kernel(target[1], params[0][0], int(params[0][1]), registers, tables, tuple(body))


# ---- what instructions mean -----------------------------------------------------------------------------------------


class Operation(NamedTuple):
    result: str  # PTX type of the result and of each operand
    operands: tuple[str, ...]
    expression: str  # C, with the operands as a, b, c, d


C_TYPES = {"pred": "bool", "f32": "float", "f64": "double"} | {
    f"{kind}{width}": f"{'int' if kind == 's' else 'uint'}{width}_t" for kind in "sub" for width in (8, 16, 32, 64)
}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _operations() -> Iterator[tuple[str, Operation]]:
    for width in (16, 32, 64):
        u, s, b = f"u{width}", f"s{width}", f"b{width}"
        for t in (u, s):
            # Modulo 2^width; `1u *` keeps 16-bit products out of int.
            yield f"add.{t}", Operation(u, (u, u), "a + b")
            yield f"sub.{t}", Operation(u, (u, u), "a - b")
            yield f"mul.lo.{t}", Operation(u, (u, u), "1u * a * b")
            yield f"mad.lo.{t}", Operation(u, (u, u, u), "1u * a * b + c")
            yield f"div.{t}", Operation(t, (t, t), "a / b")
            yield f"rem.{t}", Operation(t, (t, t), "a % b")
            yield f"min.{t}", Operation(t, (t, t), "a < b ? a : b")
            yield f"max.{t}", Operation(t, (t, t), "a > b ? a : b")
            yield f"shr.{t}", Operation(t, (t, "u32"), f"a >> (b < {width} ? b : {width - 1}) >> (b < {width} ? 0 : 1)")
            if width < 64:
                wide = f"{t[0]}{2 * width}"
                product = f"({C_TYPES[wide]})a * b"
                yield f"mul.wide.{t}", Operation(wide, (t, t), product)
                yield f"mad.wide.{t}", Operation(f"u{2 * width}", (t, t, f"u{2 * width}"), f"(uint64_t)({product}) + c")
                yield f"mul.hi.{t}", Operation(t, (t, t), f"{product} >> {width}")
            else:
                sign = "unsigned " if t == u else ""
                yield f"mul.hi.{t}", Operation(t, (t, t), f"(unsigned __int128)(({sign}__int128)a * b) >> 64")
        yield f"neg.{s}", Operation(u, (u,), "0u - a")
        yield f"not.{b}", Operation(b, (b,), "~a")
        yield f"shl.{b}", Operation(b, (b, "u32"), f"b < {width} ? (uint64_t)a << b : 0")
        for name, sign in (("and", "&"), ("or", "|"), ("xor", "^")):
            yield f"{name}.{b}", Operation(b, (b, b), f"a {sign} b")
        for t in (u, s, b):
            yield f"mov.{t}", Operation(t, (t,), "a")
            yield f"selp.{t}", Operation(t, (t, t, "pred"), "c ? a : b")
            for name, sign in _COMPARE.items():
                if t != b or name in ("eq", "ne"):
                    yield f"setp.{name}.{t}", Operation("pred", (t, t), f"a {sign} b")
        if width > 16:
            yield f"bfi.{b}", Operation(b, (b, b, "u32", "u32"), f"bfi(a, b, c, d, {width})")
            yield f"bfe.{u}", Operation(u, (u, "u32", "u32"), "bfe(a, b, c)")
    for source in C_TYPES:
        for to in C_TYPES:
            if source[0] in "us" and to[0] in "us":
                yield f"cvt.{to}.{source}", Operation(to, (source,), "a")
    for source in ("u32", "s32", "u64", "s64"):
        for to in ("f32", "f64"):
            yield f"cvt.rn.{to}.{source}", Operation(to, (source,), "a")
    yield "cvt.rn.f32.f64", Operation("f32", ("f64",), "a")
    for name, sign in (("and", "&"), ("or", "|"), ("xor", "^")):
        yield f"{name}.pred", Operation("pred", ("pred", "pred"), f"a {sign} b")
    yield "not.pred", Operation("pred", ("pred",), "!a")
    yield "mov.pred", Operation("pred", ("pred",), "a")
    yield "prmt.b32", Operation("b32", ("b32", "b32", "b32"), "prmt(a, b, c)")
    yield "lop3.b32", Operation("b32", ("b32", "b32", "b32", "u32"), "lop3(a, b, c, d)")
    for way, expression in (("l", "((uint64_t)b << 32 | a) << {n} >> 32"), ("r", "((uint64_t)b << 32 | a) >> {n}")):
        yield f"shf.{way}.wrap.b32", Operation("b32", ("b32", "b32", "u32"), expression.format(n="(c & 31)"))
        yield f"shf.{way}.clamp.b32", Operation("b32", ("b32", "b32", "u32"), expression.format(n="(c < 32 ? c : 32)"))
    for t, suffix in (("f32", "f"), ("f64", "")):
        for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/")):
            yield f"{name}.rn.{t}", Operation(t, (t, t), f"a {sign} b")
        yield f"fma.rn.{t}", Operation(t, (t, t, t), f"__builtin_fma{suffix}(a, b, c)")
        yield f"sqrt.rn.{t}", Operation(t, (t,), f"__builtin_sqrt{suffix}(a)")
        yield f"neg.{t}", Operation(t, (t,), "-a")
        yield f"abs.{t}", Operation(t, (t,), f"__builtin_fabs{suffix}(a)")
        yield f"mov.{t}", Operation(t, (t,), "a")
        yield f"selp.{t}", Operation(t, (t, t, "pred"), "c ? a : b")
        for name, sign in _COMPARE.items():  # false where an operand is NaN
            yield f"setp.{name}.{t}", Operation("pred", (t, t), "a < b || a > b" if name == "ne" else f"a {sign} b")
        yield f"setp.nan.{t}", Operation("pred", (t, t), "a != a || b != b")
        yield f"setp.num.{t}", Operation("pred", (t, t), "a == a && b == b")
    for name in ("rsqrt", "rcp"):  # of normal numbers alone, by gpu_*_approx
        for ftz in ("", ".ftz"):
            yield f"{name}.approx{ftz}.f32", Operation("f32", ("f32",), f"gpu_{name}_approx(a)")
    for name, larger in (("min", "false"), ("max", "true")):
        yield f"{name}.f32", Operation("f32", ("f32", "f32"), f"{name}_f32(a, b)")
        yield f"{name}.f16x2", Operation("b32", ("b32", "b32"), f"pick2(a, b, {larger}, 0x7C00)")
        yield f"{name}.bf16x2", Operation("b32", ("b32", "b32"), f"pick2(a, b, {larger}, 0x7F80)")
    yield "cvt.f32.f16", Operation("f32", ("b16",), "from_f16(a)")
    yield "cvt.rn.f16x2.f32", Operation("b32", ("f32", "f32"), "f16(a) << 16 | f16(b)")
    yield "cvt.rn.bf16x2.f32", Operation("b32", ("f32", "f32"), "bf16(a) << 16 | bf16(b)")
    for t, form in (("e4m3", "3, -6, 448"), ("e5m2", "2, -14, 57344")):
        yield f"cvt.rn.satfinite.{t}x2.f32", Operation("b16", ("f32", "f32"), f"f8(a, {form}) << 8 | f8(b, {form})")


OPERATIONS = dict(_operations())
_MEMORY = re.compile(r"(ld|st)(\.param|\.global)?(?:\.(?:ca|cg|cs|wb|wt|cv|nc))?(?:\.v([24]))?\.([busf](?:8|16|32|64))")
_SPECIAL = {"%tid.x": "tid", "%ctaid.x": "ctaid", "%nctaid.x": "nctaid"}


# ---- writing --------------------------------------------------------------------------------------------------------


def _c_name(register: str) -> str:
    return register.replace("%", "_")


class _Translator:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def register_type(self, name: str) -> str:
        prefix = name.rstrip("0123456789")
        if prefix == name or prefix not in self.kernel.registers:
            raise PtxError(f"unknown register {name!r}")
        return self.kernel.registers[prefix][0]

    def value(self, operand: str, type_: str) -> str:
        """An operand as a C expression of a PTX type."""
        c_type = C_TYPES[type_]
        if operand in _SPECIAL:
            return f"({c_type}){_SPECIAL[operand]}"
        if operand == self.kernel.param:  # an address in the parameter space
            return "0"
        if operand.startswith("%"):
            own, name = self.register_type(operand), _c_name(operand)
            if own[0] == "f" and type_[0] == "b":
                return f"bits_{own}({name})"
            if own[0] == "b" and type_[0] == "f":
                return f"as_{type_}({name})"
            if own[0] != type_[0] and "f" in own[0] + type_[0]:
                raise PtxError(f"{operand} of type {own} as {type_}")
            return name if C_TYPES[own] == c_type else f"({c_type}){name}"
        if operand.startswith("0f"):
            return f"as_f32(0x{operand[2:]})"
        if operand.startswith("0d"):
            return f"as_f64(0x{operand[2:]})"
        if re.fullmatch(r"-?(\d+|0x[0-9a-fA-F]+)", operand) and type_[0] != "f":
            number = int(operand, 0) & 0xFFFFFFFFFFFFFFFF
            return f"({c_type}){number}u" if number < 1 << 32 else f"({c_type}){number}ull"
        raise PtxError(f"unknown operand {operand!r}")

    def assignment(self, register: str, expression: str, type_: str) -> str:
        """A value of a PTX type into a register: bits into float registers and back, integers extended by their sign."""
        own, name = self.register_type(register), _c_name(register)
        if own[0] == "f" and type_[0] == "b":
            return f"{name} = as_{own}({expression})"
        if own[0] == "b" and type_[0] == "f":
            return f"{name} = bits_{type_}({expression})"
        if C_TYPES[own] == C_TYPES[type_]:
            return f"{name} = {expression}"
        return f"{name} = ({C_TYPES[type_]})({expression})"

    def operation(self, at: Instruction, operation: Operation) -> str:
        result, *operands = at.operands
        if len(operands) != len(operation.operands):
            raise PtxError("another number of operands")
        values = dict(zip("abcd", map(self.value, operands, operation.operands), strict=False))
        expression = re.sub(r"\b[abcd]\b", lambda match: f"({values[match[0]]})", operation.expression)
        return self.assignment(result, expression, operation.result)

    def memory(self, at: Instruction, match: re.Match[str]) -> str:
        load, space, vector, type_ = match[1] == "ld", match[2], int(match[3] or 1), match[4]
        place, data = at.operands if not load else at.operands[::-1]
        registers = data.strip("{}").replace(" ", "").split(",")
        base, _, offset = place.strip("[]").partition("+")
        size, c_type = int(type_[1:]) // 8, C_TYPES[type_]
        if len(registers) != vector:
            raise PtxError("another number of registers")
        address = f"{self.value(base, 'u64')} + {self.value(offset or '0', 'u64')}"
        if space == ".param":
            address = f"(uint64_t)param + {address}"
        if load:
            if vector > 1 and base in registers:
                raise PtxError("an address that is overwritten")
            parts = [self.assignment(to, f"load_{c_type}({address} + {i * size})", type_) for i, to in enumerate(registers)]
            return ", ".join([f"gpu_read({address}, {size * vector})", *parts])
        if space == ".param":
            raise PtxError("a store to the parameters")
        parts = [f"store_{c_type}({address} + {i * size}, {self.value(x, type_)})" for i, x in enumerate(registers)]
        return ", ".join([f"gpu_write({address}, {size * vector})", *parts])

    def halves(self, at: Instruction) -> str:
        """mov between a register and {low, high} of half its size."""
        to, source = at.operands
        width = int(at.opcode[-2:])
        pair = (to if to[0] == "{" else source).strip("{}").replace(" ", "").split(",")
        if len(pair) != 2:
            raise PtxError("not a pair")
        half = f"b{width // 2}"
        if to[0] == "{":
            whole = self.value(source, f"b{width}")
            return ", ".join(self.assignment(pair[i], f"{whole} >> {i * width // 2}", half) for i in (0, 1))
        low, high = (self.value(register, half) for register in pair)
        return self.assignment(to, f"(uint{width}_t){high} << {width // 2} | {low}", f"b{width}")

    def statement(self, at: Instruction) -> str:
        opcode = at.opcode
        if opcode in ("bra", "bra.uni"):
            return f"goto {self.label(at.operands[0])}"
        if opcode in ("ret", "exit"):
            return "return"
        if opcode in ("brx.idx", "brx.idx.uni"):
            cases = [f"case {i}: goto {self.label(label)};" for i, label in enumerate(self.kernel.tables[at.operands[1]])]
            return f"switch ({self.value(at.operands[0], 'u32')}) {{ {' '.join(cases)} default: __builtin_trap(); }}"
        if match := _MEMORY.fullmatch(opcode):
            return self.memory(at, match)
        if opcode in ("mov.b32", "mov.b64") and "{" in at.operands[0] + at.operands[1]:
            return self.halves(at)
        if opcode == "cvta.param.u64":
            return self.assignment(at.operands[0], f"(uint64_t)param + {self.value(at.operands[1], 'u64')}", "u64")
        if opcode in OPERATIONS:
            return self.operation(at, OPERATIONS[opcode])
        raise PtxError("unknown instruction")

    @staticmethod
    def label(name: str) -> str:
        return name.replace("$", "")

    def function(self, name: str) -> Iterator[str]:
        yield f"void {name}(const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid) {{"
        yield "    (void)tid, (void)ctaid, (void)nctaid;"
        for prefix, (type_, count) in self.kernel.registers.items():
            for i in range(0, count, 16):
                yield f"    {C_TYPES[type_]} {', '.join(_c_name(f'{prefix}{j}') for j in range(i, min(count, i + 16)))};"
        for item in self.kernel.body:
            if isinstance(item, Label):
                yield f"{self.label(item.name)}:;"
            else:
                guard = f"if ({_c_name(item.guard)}) " if item.guard else ""
                try:
                    yield f"    {guard}{self.statement(item)};"
                except PtxError as error:
                    raise PtxError(f"{error}: {item}") from None
        yield "}"


def translate(kernel: Kernel, name: str = "ptx_thread") -> str:
    """The kernel as C.

    Raises:
        PtxError: an instruction that has no translation.
    """
    return PRELUDE + "\n".join(_Translator(kernel).function(name)) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(translate(parse(Path(sys.argv[1]).read_text())))
    except PtxError as error:
        sys.exit(f"ptx_to_c: {error}")
