"""The tables of docs/benchmarks.md, made from the committed JSON files: ``python -m benchmarks readme-table [--check]``.

Reads JSON and writes Markdown between two markers; measures nothing. The figures of that page come from here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .results_file import read

__all__ = ["BEGIN", "END", "NO_GPU", "PAGE", "RESULTS", "TableError", "render", "replace_tables", "update"]

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- readme-table:begin -->", "<!-- readme-table:end -->"
NO_GPU = "No GPU figure is given: none has been measured yet."
OURS, BASELINE = "ours", "nn.init"  # as contestants.py names them; files stay readable if it is renamed
KINDS = (
    ("model", OURS, BASELINE, "filled in place"),
    ("model", "ours, plan bound", BASELINE, "filled again by a bound plan"),
    ("construct", "ours, deferred", "eager", "built from nothing"),
)
FOR_CALLS = ("500 small tensors",)  # models in which a call counts, and a bound plan so
PARTS = (
    "Usual: a loop over `torch.nn.init`; the library's own constructor. Models of more values than these are represented by a "
    "part: embeddings, last and first layers."
)

Row = dict[str, Any]


class TableError(Exception):
    """The tables cannot be made; the message says what to do."""


def update(page: Path | None = None, results: Path | None = None, check: bool = False) -> bool:
    """Writes the tables into the page, or only compares.

    Args:
        page, results: the file and the folder with cpu.json and, once a GPU was measured, the folder gpu (what `make gpu-check`
            wrote) or gpu.json; by default this repository's.
        check: write nothing.

    Returns:
        Whether the page already had these tables.

    Raises:
        ResultsError: no cpu.json, or it is no run.
        TableError: nothing usable in it, or no markers.
    """
    page, results = page or PAGE, results or RESULTS
    gpu = next((place for place in (results / "gpu", results / "gpu.json") if place.exists()), None)
    return replace_tables(page, render(read(results / "cpu.json"), read(gpu) if gpu else None), check)


def replace_tables(page: Path, tables: str, check: bool) -> bool:
    """Puts the tables between the markers of a page, or only compares; whether they were there already.

    Raises:
        TableError: there are no markers.
    """
    before = page.read_text(encoding="utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise TableError(f"readme-table: {page.name} must have the lines {BEGIN} and {END}, one after the other.")
    after = f"{head}{begin}\n{tables}\n{end}{tail}"
    if not check and after != before:
        page.write_text(after, encoding="utf-8")
    return after == before


def render(cpu: dict[str, Any], gpu: dict[str, Any] | None) -> str:
    """The Markdown between the markers."""
    parts = [_machine(cpu), _large(cpu["rows"]), _models(cpu["rows"]), _small(cpu["rows"])]
    parts += [NO_GPU] if gpu is None else _gpu(gpu)
    return "\n\n".join(part for part in parts if part)


def _machine(run: dict[str, Any]) -> str:
    at = run["environment"]
    return (
        f"Measured on {at['cpu']}, {at['cores']} cores, {at['isa']}, torch {at['versions']['torch']}, "
        f"{at['time'][:10]}, commit {at['commit']}. "
        "`x` is how many times as fast as `torch.nn.init` in the same interleaved run: median [quartiles]."
    )


def _large(rows: Sequence[Row]) -> str:
    """One line for each distribution and dtype, at the largest size that all of them have."""
    rows = [row for row in rows if row["case"]["group"] == "fill" and OURS in row["rates"]]
    threads = sorted({row["case"]["threads"] for row in rows})
    kinds = list(dict.fromkeys(_kind(row) for row in rows if BASELINE in row["rates"]))  # torch.nn.init fills no float8
    by_key = {(*_kind(row), row["case"]["threads"], row["case"]["values"]): row for row in rows}
    common = _common_sizes(by_key, kinds, threads)
    if not common:
        raise TableError("readme-table: one size that every distribution and dtype was measured at is needed; there is none.")
    size = max(common)
    header = [f"{_size(size)} values, 10^9 a second", "dtype"]
    for count in threads:
        header += [f"ours, {_threads(count)}", "nn.init", "x"]
    lines = []
    for kind in kinds:
        cells = [kind[0], kind[1]]
        for count in threads:
            cells += _rates(by_key[kind[0], kind[1], count, size])
        lines.append(cells)
    return _markdown(header, lines)


def _kind(row: Row) -> tuple[str, str]:
    return row["case"]["label"], row["case"]["dtype"]


def _common_sizes(by_key: Iterable[tuple[Any, ...]], kinds: Iterable[tuple[str, str]], threads: Iterable[int]) -> set[int]:
    sizes: dict[tuple[Any, ...], set[int]] = {}
    for label, dtype, count, values in by_key:
        sizes.setdefault((label, dtype, count), set()).add(values)
    wanted = [sizes.get((*kind, count), set()) for kind in kinds for count in threads]
    return set.intersection(*wanted) if wanted else set()


def _rates(row: Row) -> list[str]:
    rates = row["rates"]
    baseline = f"{rates[BASELINE]['g_values']:.3g}" if BASELINE in rates else "-"
    return [f"{rates[OURS]['g_values']:.3g}", baseline, _ratio(row)]


def _small(rows: Sequence[Row]) -> str:
    """Microseconds of a call on a tensor so small that the call is what costs; one thread, which is all it uses."""
    rows = [row for row in rows if row["case"]["group"] == "small" and {OURS, BASELINE} <= set(row["seconds"])]
    least = min((row["case"]["threads"] for row in rows), default=0)
    lines = []
    for row in rows:
        if row["case"]["threads"] == least:
            times = [f"{row['seconds'][name]['median'] * 1e6:.3g}" for name in (OURS, BASELINE)]
            lines.append([f"`{row['case']['call']}`", str(row["case"]["size"]), *times, _ratio(row)])
    return _markdown(["small float32 tensors, us a call", "shape", "ours", "nn.init", "x"], lines) if lines else ""


def _models(rows: Sequence[Row]) -> str:
    """Models in place and built from nothing, with the most threads; the usual way is a loop, or the library's own code."""
    most = max((row["case"]["threads"] for row in rows), default=0)
    lines = []
    for row, (group, ours, usual, how) in ((row, kind) for row in rows for kind in KINDS):
        case = row["case"]
        if (case["group"], case["threads"]) != (group, most) or not {ours, usual} <= set(row["seconds"]):
            continue
        if ours in (OURS, "ours, deferred") or case["label"] in FOR_CALLS:
            times = [f"{row['seconds'][name]['median']:.3g}" for name in (ours, usual)]
            values = f"{case['values'] / 1e6:.0f} M"
            lines.append([f"{case['label']}, {how}", case["dtype"], values, *times, _ratio(row, ours, usual)])
    header = [f"whole models, {_threads(most)}, s", "dtype", "values", "ours", "usual", "x"]
    return f"{_markdown(header, lines)}\n\n{PARTS}" if lines else ""


def _gpu(run: dict[str, Any]) -> list[str]:
    """Large tensors by their share of fill_, then models."""
    at, rows = run["environment"], [row for row in run["rows"] if OURS in row["rates"]]
    parts = [f"On {at['gpu']}, CUDA {at['cuda']}, torch {at['versions']['torch']}, {at['time'][:10]}, commit {at['commit']}:"]
    large: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["case"]["group"] == "fill" and "fill_" in row["ratios"].get(OURS, {}):
            kept = large.setdefault(_kind(row), row)
            if row["case"]["values"] > kept["case"]["values"]:
                large[_kind(row)] = row
    lines = []
    for (label, dtype), row in large.items():
        share = row["ratios"][OURS]["fill_"]["median"]
        lines.append([label, dtype, row["case"]["size"], f"{row['rates'][OURS]['gb']:.0f}", f"{share:.2f}", _ratio(row)])
    if lines:
        parts.append(_markdown(["one tensor", "dtype", "values", "GB/s", "share of fill_", "x"], lines))
    lines = []
    for row in (row for row in rows if row["case"]["group"] == "model"):
        times = [f"{row['seconds'][name]['median'] * 1e3:.3g}" if name in row["seconds"] else "-" for name in (OURS, BASELINE)]
        lines.append([row["case"]["label"], row["case"]["dtype"], row["case"]["size"], *times, _ratio(row)])
    if lines:
        parts.append(_markdown(["whole model, ms", "dtype", "values", "ours, one launch", "nn.init, a loop", "x"], lines))
    return parts


def _ratio(row: Row, ours: str = OURS, usual: str = BASELINE) -> str:
    spread = row["ratios"].get(ours, {}).get(usual)
    return "-" if spread is None else f"{spread['median']:.3g} [{spread['p25']:.3g}-{spread['p75']:.3g}]"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _size(values: int) -> str:
    return f"2^{values.bit_length() - 1}" if values & (values - 1) == 0 and values >= 1024 else f"{values:,}"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
