"""Where every polynomial and rational coefficient of docs/numerics.md comes from.

Fits in mpmath (Remez exchange on dense grids), rounds to the format of evaluation, refines the float32 sets against real
float32 evaluation and writes the two generated files. Knows mathematics only: no torch. Deterministic, single-threaded.

    python tools/fit_polynomials.py            fit everything, write core/coefficients.h and numerics/coefficients.py
    python tools/fit_polynomials.py --check    both files hold the same numbers (fits nothing)
    python tools/fit_polynomials.py --measure  error of the numbers on disk in the formulas of docs/numerics.md, in ulp
"""

from __future__ import annotations

import argparse
import runpy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np
from measure_polynomials import (
    CENTRAL_SIGMA,
    F32,
    QUANTILE_UNIT,
    Array,
    Coefs,
    central,
    central_x2,
    cosine,
    floats,
    horner,
    log_m2,
    measure,
    sine,
    tail,
    tail_r0,
    tail_radius,
    true_central,
    true_cosine,
    true_log,
    true_sine,
    true_z,
    ulps,
)
from mpmath import mpf

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "csrc/core/coefficients.h"
MODULE = ROOT / "weightinit_cuda/numerics/coefficients.py"

TAIL_FLOOR = 0.3  # errors of a quantile z are fitted relative to max(z, TAIL_FLOOR)

Fit = tuple[list[mpf], list[mpf]]  # P and Q by rising power, Q[0] = 1

# ---------------------------------------------------------------- minimax fits


@dataclass(frozen=True)
class Samples:
    """The target f at increasing x, and the weight that multiplies its error."""

    x: Sequence[mpf]
    f: Sequence[mpf]
    weight: Sequence[mpf]

    def errors(self, fit: Fit) -> list[mpf]:
        p, q = fit
        return [w * (horner(p, x) / horner(q, x) - f) for x, f, w in zip(self.x, self.f, self.weight, strict=True)]


def linear_row(x: mpf, value: mpf, degrees: tuple[int, int]) -> list[mpf]:
    """Left side of P(x) - value (Q(x) - 1) = value."""
    powers = [x**k for k in range(max(degrees) + 1)]
    return powers[: degrees[0] + 1] + [-value * power for power in powers[1 : degrees[1] + 1]]


def split(solution: Sequence[mpf], degrees: tuple[int, int]) -> Fit:
    p, q = degrees
    return list(solution[: p + 1]), [mpf(1), *solution[p + 1 : p + 1 + q]]


def lawson(s: Samples, degrees: tuple[int, int]) -> Fit:
    """Iteratively reweighted, linearised least squares on part of the grid: close enough for the exchange to start from."""
    count = 5 * (sum(degrees) + 2)
    keep = [round((len(s.x) - 1) * k / (count - 1)) for k in range(count)]
    s = Samples(*([column[k] for k in keep] for column in (s.x, s.f, s.weight)))
    trials, emphasis, denominators = [], np.ones(len(s.x)), [mpf(1)] * len(s.x)
    for _ in range(12):
        scale = [mpf(float(e)) ** 0.5 * w / d for e, w, d in zip(emphasis, s.weight, denominators, strict=True)]
        a = mp.matrix([[k * v for v in linear_row(x, f, degrees)] for k, x, f in zip(scale, s.x, s.f, strict=True)])
        fit = split(mp.lu_solve(a.T * a, a.T * mp.matrix([k * f for k, f in zip(scale, s.f, strict=True)])), degrees)
        denominators = [abs(horner(fit[1], x)) for x in s.x]
        error = np.array([abs(float(e)) for e in s.errors(fit)])
        trials.append((error.max(), fit))
        emphasis = emphasis * (error / error.max() + 1e-9)
        emphasis = np.maximum(emphasis / emphasis.max(), 1e-12)
    return min(trials, key=lambda trial: trial[0])[1]


def alternation(errors: Sequence[mpf], count: int) -> list[int]:
    """The largest error of each run of one sign, cut at the ends to `count` points."""
    peaks: list[int] = []
    for i, e in enumerate(errors):
        if not peaks or (errors[peaks[-1]] > 0) != (e > 0):
            peaks.append(i)
        elif abs(e) > abs(errors[peaks[-1]]):
            peaks[-1] = i
    while len(peaks) > count:
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    return peaks


def levelled(s: Samples, points: Sequence[int], fit: Fit, level: mpf) -> Fit:
    """Newton's method for the fit whose weighted error is level, -level, level, ... on the points."""
    degrees, step = (len(fit[0]) - 1, len(fit[1]) - 1), mp.inf
    while abs(step) > mpf("1e-8") * abs(level):
        rows, right = [], []
        for k, i in enumerate(points):
            sign = (-1) ** k / s.weight[i]
            value, slope = s.f[i] + sign * level, sign * horner(fit[1], s.x[i])
            rows.append([*linear_row(s.x[i], value, degrees), -slope])
            right.append(value - slope * level)
        solution = list(mp.lu_solve(mp.matrix(rows), mp.matrix(right)))
        fit, step, level = split(solution, degrees), solution[-1] - level, solution[-1]
    return fit


def remez(name: str, s: Samples, p_degree: int, q_degree: int = 0) -> Fit:
    """Minimax P/Q on the grid; prints its largest weighted error."""
    started, degrees, count = time.perf_counter(), (p_degree, q_degree), p_degree + q_degree + 2
    fit = lawson(s, degrees)
    while True:
        errors = s.errors(fit)
        points, worst = alternation(errors, count), max(map(abs, errors))
        least = min(abs(errors[i]) for i in points)
        if len(points) < count:
            raise ArithmeticError(f"remez: {name} {degrees} alternates {len(points)} times only, {count} are needed")
        if worst < least * mpf("1.001"):
            break
        fit = levelled(s, points, fit, mp.sign(errors[points[0]]) * (worst + least) / 2)
    sign = "all positive" if min(*fit[0], *fit[1]) > 0 else "mixed signs"
    print(f"{name:18} {p_degree}/{q_degree}  minimax {mp.nstr(worst, 4):10} {sign}  {time.perf_counter() - started:.1f} s")
    return fit


# ---------------------------------------------------------------- targets


def chebyshev(low: float | mpf, high: float | mpf, count: int) -> list[mpf]:
    """Points dense at both ends, ends included."""
    return [low + (mpf(high) - low) * (1 - mp.cospi(mpf(k) / (count - 1))) / 2 for k in range(count)]


def relative(x: Sequence[mpf], f: Callable[[mpf], mpf]) -> Samples:
    values = [f(v) for v in x]
    return Samples(x, values, [1 / abs(v) for v in values])


def log_samples_f32() -> Samples:
    """-2 ln(1 + f) / f on [sqrt(1/2) - 1, sqrt 2 - 1]. As u <= 1, f > 0 only meets exponents of -1 and less: there the error
    counts relative to 2 ln 2 - 2 ln(1 + f)."""
    x = chebyshev(mp.sqrt(0.5) - 1, -1e-9, 200) + chebyshev(1e-9, mp.sqrt(2) - 1, 200)
    f = [-2 * mp.log1p(v) / v for v in x]
    return Samples(x, f, [-1 / q if v < 0 else v / (2 * mp.log(2) + v * q) for v, q in zip(x, f, strict=True)])


def elementary_samples() -> tuple[Samples, Samples, Samples]:
    """-2 ln(m) / s in z = s^2, s = (m - 1) / (m + 1); sin(pi a) / a in y = a^2; (cos(pi a) - 1) / y, which leaves the
    constant of the cosine exactly 1, with the weight y that makes the error the cosine's own."""
    log = relative(chebyshev(1e-30, (mp.sqrt(2) - 1) ** 4, 400), lambda z: -4 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z))
    sin = relative(chebyshev(1e-30, 0.25, 400), lambda y: mp.sinpi(mp.sqrt(y)) / mp.sqrt(y))
    y = chebyshev(1e-12, 0.25, 400)
    return log, sin, Samples(y, [(mp.cospi(mp.sqrt(v)) - 1) / v for v in y], y)


def central_samples() -> Samples:
    """z / x, x = erf(z / sqrt 2), as a function of v = X2 - x^2; v < 0: a scaled grid may overstep X2 by its rounding."""
    x2 = central_x2()
    return relative(chebyshev(-1e-6, x2 - 1e-15, 300), lambda v: mp.sqrt(2 / (x2 - v)) * mp.erfinv(mp.sqrt(x2 - v)))


def tail_samples(z_high: float, count: int, r0: float) -> Samples:
    """z - t over t = r(z) - r0, from slightly below z = 0; z spaced like sinh."""
    z = [mp.sinh(t) / 2 for t in chebyshev(-2e-6, mp.asinh(2 * z_high), count)]
    t = [tail_radius(v) - mpf(r0) for v in z]
    return Samples(t, [a - b for a, b in zip(z, t, strict=True)], [1 / max(v, mpf(TAIL_FLOOR)) for v in z])


# ---------------------------------------------------------------- fitting and rounding everything


def refined(exact: Sequence, fixed: int, evaluate: Callable, truth: Array, floor: float = 0.0) -> tuple[float, ...]:
    """Rounded to float32, then coordinate descent by one ulp on the largest error of real evaluation; coefs[fixed] stays."""
    coefs, improved = [float(F32(float(c))) for c in exact], True
    best = ulps(evaluate(coefs), truth, floor).max()
    while improved:
        improved = False
        for k, direction in ((k, d) for k in range(len(coefs)) for d in (-np.inf, np.inf) if k != fixed):
            trial = [*coefs]
            trial[k] = float(np.nextafter(F32(trial[k]), F32(direction)))
            if (error := ulps(evaluate(trial), truth, floor).max()) < best:
                coefs, best, improved = trial, error, True
    return tuple(coefs)


def fit_f64() -> Coefs:
    """Rounded only: the rounding of separate mul and add leaves a search by one ulp nothing to win."""
    mp.mp.dps = 400  # the normal equations of the tail hold powers up to (1e6)^42
    log, sin, cos = elementary_samples()
    coefs = {"LOG64": remez("LOG64", log, 7)[0], "SIN64": remez("SIN64", sin, 8)[0]}
    coefs["COS64"] = [mpf(1), *remez("COS64", cos, 8)[0]]
    samples = tail_samples(1.05e6, 700, tail_r0(np.float64))
    coefs["QUANTILE_TAIL_P64"], coefs["QUANTILE_TAIL_Q64"] = remez("QUANTILE_TAIL64", samples, 21, 21)
    return {name: tuple(map(float, values)) for name, values in coefs.items()}


def spread(low: float, high: float, start: float, stop: float) -> Array:
    """Some 100000 float32 from low to high, as many in each octave, and 100000 equally far apart from start to stop."""
    octaves = np.concatenate([*floats(low, high, 256)])
    line = start + np.arange(100001) * ((stop - start) / 100000)
    return np.concatenate([octaves[:: -(-len(octaves) // 100000)], line.astype(F32)])


def fit_f32(wide: Coefs) -> Coefs:
    """`wide`, the float64 sets, are the truth."""
    mp.mp.dps = 60
    edge, r0 = float(np.sqrt(central_x2())), tail_r0(F32)
    u, a = spread(2.0**-32, 1, 0.5, 1), spread(2.0**-20, 0.5, 2.0**-16, 0.5)
    x, r = spread(2.0**-16, edge, 2.0**-16, edge), spread(r0, 4100, r0, 8)
    _, sin_samples, cos_samples = elementary_samples()
    log, sin = remez("LOG32", log_samples_f32(), 8)[0], remez("SIN32", sin_samples, 4)[0]
    cos = [mpf(1), *remez("COS32", cos_samples, 3)[0]]
    coefs = {
        "LOG32": refined(log, -1, lambda c: log_m2(u, 1e-30, c), true_log(u, wide)),
        "SIN32": refined(sin, -1, lambda c: sine(a, c), true_sine(a, wide)),
        "COS32": refined(cos, 0, lambda c: cosine(a, c), true_cosine(a, wide), 0.5),
    }
    for name, samples, degrees, formula, v, truth in (
        ("CENTRAL", central_samples(), (4, 4), central, x, true_central(x, wide)),
        ("TAIL", tail_samples(4200, 600, r0), (6, 6), tail, r, true_z(r, wide)),
    ):
        (p, q), n = remez(f"QUANTILE_{name}32", samples, *degrees), degrees[0] + 1
        both = refined([*p, *q], n, lambda c, f=formula, v=v, n=n: f(v, c[:n], c[n:]), truth, QUANTILE_UNIT)
        coefs |= {f"QUANTILE_{name}_P32": both[:n], f"QUANTILE_{name}_Q32": both[n:]}
    return coefs


# ---------------------------------------------------------------- the two files

HEADER_TEXT = """// generated by tools/fit_polynomials.py, do not edit
//
// Coefficients by rising power; the formulas are those of docs/numerics.md. Pure C++17: constants and nothing else.
// nvcc takes a namespace-scope constexpr array in device code as a template argument with constant indices only:
// template <const auto& K, int I> ... constexpr auto k = K[I]; it rejects K[i] with a loop variable, whatever the flags.

// clang-format off
#pragma once

namespace wi::coefficients {

inline constexpr float kCentralSigma = @sigmaf;
inline constexpr float kCentralX2 = @x2f;  // erf(kCentralSigma / sqrt 2)^2, rounded up

namespace f32 {

inline constexpr float kQuantileTailR0 = @r32f;  // sqrt(2 ln 2)

@32}  // namespace f32

namespace f64 {

inline constexpr double kQuantileTailR0 = @r64;  // sqrt(2 ln 2)

@64}  // namespace f64

}  // namespace wi::coefficients
"""

MODULE_TEXT = '''"""generated by tools/fit_polynomials.py, do not edit

Coefficients by rising power; the formulas are those of docs/numerics.md.
"""

CENTRAL_SIGMA = float.fromhex("@sigma")
CENTRAL_X2 = float.fromhex("@x2")  # erf(CENTRAL_SIGMA / sqrt 2)^2, rounded up to float32
QUANTILE_TAIL_R0_32 = float.fromhex("@r32")  # sqrt(2 ln 2)
QUANTILE_TAIL_R0_64 = float.fromhex("@r64")
@32@64'''


def literal(value: float) -> str:
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}"


def c_array(name: str, values: Sequence[float]) -> str:
    kind, suffix = {"32": ("float", "f"), "64": ("double", "")}[name[-2:]]
    bound = "".join(word.capitalize() for word in name[:-2].split("_")) + f"[{len(values)}]"
    return f"inline constexpr {kind} k{bound} = {{\n" + "".join(f"    {literal(v)}{suffix},\n" for v in values) + "};\n\n"


def python_tuple(name: str, values: Sequence[float]) -> str:
    return f"{name} = (\n" + "".join(f'    float.fromhex("{literal(v)}"),\n' for v in values) + ")\n"


def filled(template: str, array: Callable[[str, Sequence[float]], str], coefs: Coefs) -> str:
    text = template.replace("@sigma", literal(CENTRAL_SIGMA)).replace("@x2", literal(central_x2()))
    for key, kind in (("32", F32), ("64", np.float64)):
        text = text.replace(f"@r{key}", literal(tail_r0(kind)))
        text = text.replace(f"@{key}", "".join(array(n, v) for n, v in coefs.items() if n.endswith(key)))
    return text


def files(coefs: Coefs) -> dict[Path, str]:
    return {HEADER: filled(HEADER_TEXT, c_array, coefs), MODULE: filled(MODULE_TEXT, python_tuple, coefs)}


def read_module() -> Coefs:
    return {k: v for k, v in runpy.run_path(str(MODULE)).items() if isinstance(v, tuple)}


def check() -> int:
    """0 when both files are, to the byte, what the numbers of the Python file print, and every float32 number is one."""
    coefs = read_module()
    narrow = all(float(F32(c)) == c for name, values in coefs.items() if name.endswith("32") for c in values)
    same = all(path.read_text() == text for path, text in files(coefs).items())
    print(f"{len(coefs)} sets, the same in both files: {same}; float32 sets hold float32 numbers: {narrow}")
    return int(not (same and narrow))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the two files, fit nothing")
    parser.add_argument("--measure", action="store_true", help="print the errors of the numbers on disk")
    options = parser.parse_args()
    if options.measure:
        measure(read_module())
    elif not options.check:
        wide = fit_f64()
        for path, text in files(fit_f32(wide) | wide).items():
            path.write_text(text)
    return check()


if __name__ == "__main__":
    raise SystemExit(main())
