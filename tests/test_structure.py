"""The shape of the code: who may include and import whom, what the documents promise, and how large things may grow.

The arrows are those of docs/design.md and csrc/README.md, written out: an include or an import that is not here is a new arrow,
to be drawn there first.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import oracle
import pytest
from conftest import RANDOM, REAL_DTYPES

from weightinit_cuda.numerics import reference
from weightinit_cuda.numerics.combine import Mode
from weightinit_cuda.numerics.lowering import Kind

ROOT = Path(__file__).resolve().parent.parent
CSRC, PACKAGE = ROOT / "csrc", ROOT / "weightinit_cuda"
CXX = sorted(path for suffix in ("h", "cpp", "cu", "cuh") for path in CSRC.rglob(f"*.{suffix}"))
PYTHON = sorted(PACKAGE.rglob("*.py"))

# ---- includes -------------------------------------------------------------------------------------------------------

LANES = {f"core/lanes_{isa}.h" for isa in ("scalar", "avx2", "avx512", "avx512bf16", "neon")}
# Each file and the files of ours that it may include. core/ knows nothing above it, cpu/ and cuda/ nothing of each other.
INCLUDES: dict[str, set[str]] = {
    "job.h": set(),
    "core/address.h": {"job.h"},
    "core/scalar_device.h": set(),
    "core/lanes_scalar.h": {"core/scalar_device.h"},  # where WI_DEVICE is defined, and only there
    "core/lanes_avx2.h": {"core/lanes_scalar.h"},
    "core/lanes_avx512.h": {"core/lanes_scalar.h"},
    "core/lanes_avx512bf16.h": {"core/lanes_avx512.h"},
    "core/lanes_neon.h": {"core/lanes_scalar.h"},
    "core/pack.h": {"core/lanes_scalar.h"},
    "core/philox.h": {"core/lanes_scalar.h"},
    "core/philox_avx2.h": {"core/lanes_avx2.h", "core/pack.h", "core/philox.h"},
    "core/philox_avx512.h": {"core/lanes_avx512.h", "core/pack.h", "core/philox.h"},
    "core/coefficients.h": set(),
    "core/math.h": {"core/coefficients.h", "core/lanes_scalar.h"},
    "core/distributions.h": {"core/math.h", "job.h"},
    "core/convert.h": {"core/lanes_scalar.h", "job.h"},
    "core/combine.h": {"core/convert.h"},
    "core/transpose.h": {"core/lanes_scalar.h", "job.h"},
    "core/fill.h": {"core/convert.h", "core/distributions.h", "core/pack.h", "core/philox.h"},
    "cpu/kernels.h": {"job.h"},
    "cpu/parallel.h": set(),
    "cpu/parallel.cpp": {"cpu/parallel.h", "cpu/cpus.h"},
    "cpu/cpus.h": set(),
    "cpu/cpus.cpp": {"cpu/cpus.h"},
    "cpu/dispatch.h": {"job.h"},
    "cpu/blocks.h": {"core/address.h"},
    "cpu/blocks.cpp": {"cpu/blocks.h"},
    "cpu/dispatch.cpp": {"cpu/dispatch.h", "cpu/blocks.h", "cpu/kernels.h", "cpu/parallel.h", "core/address.h"},
    "cpu/fill_scalar.cpp": {"cpu/kernels.h", "core/lanes_scalar.h", "core/fill.h", "core/combine.h", "core/transpose.h"},
    "cpu/fill_avx2.cpp": {
        "cpu/kernels.h",
        "core/lanes_avx2.h",
        "core/philox_avx2.h",
        "core/fill.h",
        "core/combine.h",
        "core/transpose.h",
    },
    "cpu/fill_avx512bf16.cpp": {
        "cpu/kernels.h",
        "core/lanes_avx512bf16.h",
        "core/philox_avx512.h",
        "core/fill.h",
    },
    "cpu/fill_avx512.cpp": {
        "cpu/kernels.h",
        "core/lanes_avx512.h",
        "core/philox_avx512.h",
        "core/fill.h",
        "core/combine.h",
        "core/transpose.h",
    },
    "cpu/fill_neon.cpp": {"cpu/kernels.h", "core/lanes_neon.h", "core/fill.h", "core/combine.h", "core/transpose.h"},
    "blake2b.h": set(),
    "table.h": {"cpu/dispatch.h", "job.h"},
    "first_fills.h": set(),
    "first_fills.cpp": {"calls.h", "first_fills.h", "named.h"},
    "named_tensors.h": set(),
    "calls.h": set(),
    "named.h": {"calls.h"},
    "named_tensors.cpp": {"calls.h", "named.h", "named_tensors.h"},
    "dlpack.h": set(),
    "meanings.h": set(),
    "meanings.cpp": {"calls.h", "meanings.h"},
    "plain_tensors.h": {"dlpack.h", "table.h"},
    "plain_tensors.cpp": {"calls.h", "plain_tensors.h"},
    "short_calls.h": {"meanings.h", "plain_tensors.h"},
    "short_calls.cpp": {"calls.h", "short_calls.h"},
    "plain_tape.h": {"meanings.h"},
    "plan_columns.h": set(),
    "plan_columns.cpp": {"calls.h", "named.h", "plan_columns.h"},
    "plain_tape.cpp": {"calls.h", "plain_tape.h"},
    "subscripts.h": set(),
    "subscripts.cpp": {"calls.h", "subscripts.h"},
    "registered.h": set(),
    "registered.cpp": {"calls.h", "registered.h"},
    "module_attributes.h": {"calls.h"},
    "module_attributes.cpp": {"calls.h", "module_attributes.h"},
    "bindings.cpp": {
        "blake2b.h",
        "cpu/dispatch.h",
        "cpu/parallel.h",
        "cuda/fill_cuda.h",
        "first_fills.h",
        "job.h",
        "named_tensors.h",
        "plain_tape.h",
        "plain_tensors.h",
        "plan_columns.h",
        "registered.h",
        "module_attributes.h",
        "short_calls.h",
        "subscripts.h",
        "table.h",
    },
}
# cuda/ may use all of core but the vector lanes, the job, and itself.
ANY_CUDA = {name for name in INCLUDES if name.startswith("core/")} - (LANES - {"core/lanes_scalar.h"}) | {"job.h"}
# Headers that are not ours, and the only files that may see them.
SYSTEM: dict[str, str] = {
    r"(immintrin|arm_neon)\.h": r"cpu/(fill_(avx2|avx512|avx512bf16|neon)|parallel)\.cpp",
    r"pybind11/.*": r"(bindings|named_tensors)\.cpp|"
    r"(calls|first_fills|meanings|module_attributes|named_tensors|plain_tape|plain_tensors|plan_columns|registered|short_calls"
    r"|subscripts)\.h",
    r"(cuda|cuda_runtime|cuda_.*|device_.*)\.h": r"cuda/.*",
    r"(torch|ATen|c10)/.*": r"nowhere",
    r"(omp|cmath|math)\.h?": r"nowhere",
    r"(pthread|signal)\.h": r"cpu/parallel\.cpp",
    r"sched\.h": r"cpu/cpus\.cpp",
    r"dlfcn\.h": r"nowhere",
}


def includes(path: Path) -> list[tuple[str, str]]:
    """Each include as ('"' or '<', name)."""
    return [
        (quote, name) for quote, name in re.findall(r'^\s*#\s*include\s+(["<])([^">]+)[">]', path.read_text(), re.MULTILINE)
    ]


@pytest.mark.parametrize("path", CXX, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_follow_the_arrows(path: Path) -> None:
    name = str(path.relative_to(CSRC))
    for quote, included in includes(path):
        if quote == "<":
            for pattern, where in SYSTEM.items():
                assert not re.fullmatch(pattern, included) or re.fullmatch(where, name), f"{name} includes <{included}>"
            if name.startswith("core/") or name == "job.h":
                assert included in ("cstdint", "cstring"), f"{name} is pure, and includes <{included}>"
            continue
        target = (path.parent / included).resolve()
        assert target.exists(), f"{name}: {included}"
        arrow = str(target.relative_to(CSRC))
        if name.startswith("cuda/"):
            assert arrow in ANY_CUDA or arrow.startswith("cuda/"), f"{name} -> {arrow}"
        else:
            assert name in INCLUDES, f"{name} is new: draw its arrows"
            assert arrow in INCLUDES[name], f"{name} -> {arrow}"


def test_device_operations_stay_out_of_the_cpu() -> None:
    text = (CSRC / "core" / "lanes_scalar.h").read_text()
    assert re.search(r'#if defined\(WI_DEVICE\)\n#include "scalar_device.h"\n#else\n', text)
    assert not includes(CSRC / "core" / "scalar_device.h")


@pytest.mark.parametrize("path", CXX, ids=lambda path: str(path.relative_to(CSRC)))
def test_core_calls_no_library(path: Path) -> None:
    """No libm, no allocation, no streams in core/; no approximate or contracted arithmetic anywhere."""
    code = re.sub(r"//[^\n]*", "", path.read_text())
    forbidden = [
        r"\b_mm\d*_(rcp|rsqrt)\w*",
        r"\b__(f?fdividef|expf|logf|sinf|cosf|powf)\b",
        r"#pragma\s+STDC\s+FP_CONTRACT\s+ON",
        r"\b(vrsqrte|vrecpe)",
    ]
    if path.parent.name == "core":
        forbidden += [r"\bstd::(sin|cos|log|exp|sqrt|fma|pow|erf)\b", r"\b(malloc|new|throw)\b", r"\bstd::(vector|string)\b"]
    for pattern in forbidden:
        assert not re.search(pattern, code), f"{path.name}: {pattern}"


def test_every_isa_file_opens_its_own_target_region() -> None:
    """System headers come before the region, so that nothing of theirs is compiled for the ISA."""
    for path in sorted((CSRC / "cpu").glob("fill_avx*.cpp")):
        text = path.read_text()
        region = text.index("#pragma GCC target")
        assert all(text.index(f"<{name}>") < region for quote, name in includes(path) if quote == "<")
        assert all(text.index(f'"{name}"') > region for quote, name in includes(path) if "core/" in name)


# ---- imports --------------------------------------------------------------------------------------------------------

STANDARD = set(sys.stdlib_module_names)
# Packages beside torch: the command line, figures, tables, a file format, templates (which come with torch).
OPTIONAL = {"click", "matplotlib", "rich", "safetensors", "transformers", "numpy", "benchmarks", "jinja2", "markupsafe"}
# What stays small stays small: all that these import.
ONLY: dict[str, set[str]] = {
    "numerics.reference": {
        "torch",
        "numerics.coefficients",
        "numerics.combine",
        "numerics.lowering",
        "numerics.rounding",
        "numerics.runs",
    },
    "numerics.streams": set(),
    "numerics.probability": set(),
    "numerics.rounding": {"torch"},
    "numerics.coefficients": set(),
}


def name_of(path: Path) -> str:
    """A module of the package by its dotted name; a folder by its own."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__") if name != "__init__" else name


MODULES = {name_of(path) for path in PYTHON} | {"_C"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too: ours by their dotted name in the package, others by their first."""
    package = ["weightinit_cuda", *path.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] != "weightinit_cuda":
                found.add(module.split(".")[0])
                continue
            own = module.removeprefix("weightinit_cuda").removeprefix(".")
            for alias in node.names:
                inside = f"{own}.{alias.name}" if own else alias.name
                found.add(inside if inside in MODULES else own or "__init__")
    return found


def box_of(name: str) -> str:
    """The room that a module lies in, or the module itself at the top of the package."""
    return name.split(".")[0]


def arrows() -> dict[str, set[str]]:
    """Each box at the top of the package, with those that it imports from."""
    found: dict[str, set[str]] = {}
    for path in PYTHON:
        box = box_of(name_of(path))
        found.setdefault(box, set()).update({box_of(name) for name in imports(path) & MODULES} - {box})
    return found


# The rooms of the package from the bottom, and what each may import from. A new arrow is drawn here first, and one that no
# import needs is taken out again. No room imports from one further down in this list, so there is no circle.
ARROWS = {
    "_C": "",
    "_version": "",
    "numerics": "",
    "tensors": "_C",
    "engine": "_C _version numerics tensors",
    "init": "engine numerics tensors",
    "rules": "_C init numerics tensors",
    "plans": "_C _version engine init numerics rules tensors",
    "recording": "engine init numerics plans rules tensors",
    "checkpoints": "_version engine init plans tensors",
    "diagnosis": "checkpoints init numerics plans recording rules tensors",
    "cli": "_version checkpoints diagnosis engine init numerics plans recording rules",
    "__init__": "_version checkpoints diagnosis engine init plans recording rules tensors",
    "__main__": "cli",
}


def test_rooms_follow_the_arrows() -> None:
    drawn = {room: set(others.split()) for room, others in ARROWS.items()}
    found = {**arrows(), "_C": set()}
    assert found.keys() == drawn.keys(), "a room is new, or gone"
    for room in drawn:
        assert not found[room] - drawn[room], f"{room} imports from {sorted(found[room] - drawn[room])}: draw the arrow first"
        assert not drawn[room] - found[room], f"{room} imports nothing from {sorted(drawn[room] - found[room])} any more"


def test_no_arrow_runs_upward() -> None:
    order = list(ARROWS)
    for room, others in ARROWS.items():
        assert all(order.index(other) < order.index(room) for other in others.split()), room


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_imports_are_few(path: Path) -> None:
    name, found = name_of(path), imports(path) - STANDARD
    others = found - MODULES
    assert others <= {"torch", "typing_extensions"} | OPTIONAL, f"{name} imports {others}"
    if name in ONLY:
        assert found <= ONLY[name], f"{name} imports {sorted(found - ONLY[name])}"


def test_a_program_that_fills_tensors_imports_no_rules_and_no_plans() -> None:
    code = "import sys, weightinit_cuda; print({m.split('.')[1] for m in sys.modules if m.startswith('weightinit_cuda.')})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) - {"_C"} == {"_version", "engine", "init", "numerics", "tensors"}


def test_nothing_imports_tests_or_benchmarks() -> None:
    for path in PYTHON:
        assert not imports(path) & {"tests", "conftest", "oracle", "benchmarks", "tools"}, path.name


# ---- documents ------------------------------------------------------------------------------------------------------


def rows() -> set[str]:
    """The headings of docs/numerics.md as names with a width: normal_32, log_m2_64, ..."""
    found, width = set(), ""
    for line in (ROOT / "docs" / "numerics.md").read_text().splitlines():
        if match := re.match(r"## \d+\. (float32|float64)?", line):
            width = {"float32": "_32", "float64": "_64"}.get(match[1] or "", "")
        elif (match := re.match(r"### (\w+)", line)) and width:
            found.add(match[1] + width)
    return found


def test_rows_of_the_document_are_the_functions_that_are_tested() -> None:
    """One name in the document, the oracle, the reference and the kernels: one grep finds a function's whole life."""
    document = rows()
    tested = {name for name in vars(oracle) if re.fullmatch(r"(uniform|log_m2|normal|trunc_normal\w*)_(32|64)", name)}
    specified = {name for name in vars(reference) if re.fullmatch(r"(uniform|log_m2|normal|trunc_normal\w*)_(32|64)", name)}
    core = (CSRC / "core" / "math.h").read_text() + (CSRC / "core" / "distributions.h").read_text()
    kernels = {f"{name}_{width}" for name, width in re.findall(r"struct ([A-Z]\w+?)(32|64) \{", core)}
    kernels = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in kernels}
    kernels |= set(re.findall(r"\b(log_m2_(?:32|64))\(", core))
    assert "normal_32" in kernels
    assert document == tested == specified == kernels


def test_every_kind_is_tested() -> None:
    kinds = {oracle.rule_of(d, dtype).name for d in RANDOM.values() for dtype in REAL_DTYPES if dtype.itemsize > 1}
    clamped = {kind.name.lower().removesuffix("_clamped") for kind in Kind}
    assert clamped - kinds - {"constant", "bits", "one_hot"} == set()


def test_kinds_have_the_numbers_of_the_kernels() -> None:
    header = (CSRC / "job.h").read_text()
    for kinds in (Kind, Mode):
        enum = re.search(rf"enum class {kinds.__name__} : int \{{(.*?)\}};", header, re.DOTALL)
        assert enum
        numbers = {name: int(number) for name, number in re.findall(r"k(\w+) = (\d+)", enum[1])}
        assert numbers == {"".join(part.capitalize() for part in kind.name.split("_")): int(kind) for kind in kinds}


def tracked() -> list[Path]:
    try:
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git repository")
    return [path for name in names.splitlines() if (path := ROOT / name).is_file()]


def test_no_file_mentions_a_machine() -> None:
    """Paths of the machine on which a file was made mean nothing on another."""
    machine = re.compile(r"(?<![\w.$}~-])/" + r"(?:work|root|home|Users|mnt|opt/\w+|tmp/venv)" + r"/[\w.-]+|\.pyenv[/]versions")
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found = machine.search(text)
        assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


# ---- sizes ----------------------------------------------------------------------------------------------------------

LONGEST_FUNCTION, LONGEST_FILE = 100, 500
LONGEST_FILES = {"weightinit_cuda": 450, "tests": 800}  # by folder


def cxx_functions(path: Path) -> list[tuple[str, int]]:
    """Names and lengths of what has a body and looks like a function: ``name(...) ... {`` up to its brace."""
    lines, found = path.read_text().splitlines(), []
    for i, line in enumerate(lines):
        if re.match(r"\s*(namespace|struct|class|enum|extern|if|for|while|switch|else|do)\b", line):
            continue
        if not re.search(r"\)[^;]*\{\s*(//.*)?$", line):
            continue
        depth, end = 0, i
        for end in range(i, len(lines)):
            code = re.sub(r'"(\\.|[^"\\])*"|//.*', "", lines[end])
            depth += code.count("{") - code.count("}")
            if depth <= 0:
                break
        name = re.search(r"(\w+)\s*\(", line)
        found.append((name[1] if name else line.strip(), end - i + 1))
    return found


def python_functions(path: Path) -> list[tuple[str, int]]:
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_functions_and_files_stay_small() -> None:
    long: list[str] = []
    for path in tracked():
        if path.suffix not in (".py", ".pyi", ".h", ".cpp", ".cu", ".cuh"):
            continue
        name = path.relative_to(ROOT)
        limit = LONGEST_FILES.get(name.parts[0], LONGEST_FILE)
        if (length := len(path.read_text().splitlines())) > limit:
            long.append(f"{name}: {length} lines")
        functions = python_functions(path) if path.suffix in (".py", ".pyi") else cxx_functions(path)
        long += [f"{name}: {function}, {n} lines" for function, n in functions if n > LONGEST_FUNCTION]
    assert not long


def test_the_measure_of_functions_measures() -> None:
    """Power of the test above: it sees functions, in C++ too."""
    lengths = dict(cxx_functions(CSRC / "core" / "address.h"))
    assert 5 < lengths["place_of"] < 20
    assert sum(len(cxx_functions(path)) for path in CXX) > 100
