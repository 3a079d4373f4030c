"""The page: sections of plots and tables from a run's JSON. Sections without data are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import plots, tables

__all__ = ["render"]

HERE = Path(__file__).parent
INSTRUCTIONS = HERE.parent / "instructions" / "counts.json"
Section = tuple[str, str, str]  # title, what it says, body


def render(run: dict[str, Any]) -> str:
    """The whole page."""
    sections = [section for section in _sections(run) if section[2]]
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _, _ in sections)
    parts = [
        f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2><p>{note}</p>{body}</section>'
        for title, note, body in sections
    ]
    style = (HERE / "style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>weightinit_cuda benchmarks</title><style>{style}</style></head>\n<body><main>"
        "<h1>weightinit_cuda against everyone who fills tensors with random numbers</h1>"
        f"{_environment(run['environment'])}<nav>{links}</nav>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def _sections(run: dict[str, Any]) -> Iterator[Section]:
    rows, quality = run["rows"], run.get("quality", [])
    threads = sorted({row["case"]["threads"] for row in rows})
    labels = list(dict.fromkeys(label for label, _ in plots.kinds(rows, "fill")))
    yield (
        "One tensor",
        "Medians of interleaved runs; the thin line is the interquartile range. A peer that is missing could not take part: "
        "the reasons are at the end.",
        _plots(plots.rate_bars(rows, label, count) for label in labels for count in threads) + tables.fill(rows),
    )
    yield (
        "Small tensors",
        "A call on ten values or a small layer is nearly all Python. Beyond the dotted line ours is faster.",
        _plots(plots.small_bars(rows, count) for count in threads[:1]),
    )
    yield (
        "Scaling",
        "Rate against size: dashed with one thread, solid with all cores. fill_ is what storing alone takes.",
        _plots(plots.scaling_curves(rows, *kind) for kind in plots.kinds(rows, "scaling")) + tables.scaling(rows),
    )
    yield (
        "Whole models",
        "Real shapes and each parameter's own initialisation. In place: memory that exists. Built from nothing: the library's "
        "constructor and new memory. Large models are represented by a part, unless the table says otherwise.",
        _plots(plots.speedup_bars(rows, group, count) for group in ("model", "construct") for count in threads)
        + tables.models(rows),
    )
    yield (
        "Neighbours",
        "A second thread while the machine has something else to do: one thread and several in the same row.",
        tables.neighbours(rows),
    )
    yield (
        "Quality of the numbers",
        "The same statistics on every source. Red is what chance does not explain (p &lt; 10⁻⁶); controls are wrong on purpose "
        "and have to be red.",
        _plots([plots.tail_plot(quality)]) + tables.quality(quality),
    )
    yield ("Instructions per value", "Independent of the machine's noise: counted, not timed.", _instructions())
    yield ("Targets", "What has to be reached; the worst row decides.", tables.targets(run.get("targets", [])))
    yield ("Left out", "Who did not take part in which rows, and why.", tables.skipped(rows, quality))


def _plots(svgs: Any) -> str:
    drawn = "".join(f"<figure style='margin:0'>{svg}</figure>" for svg in svgs if svg)
    return f'<div class="plots">{drawn}</div>' if drawn else ""


def _instructions() -> str:
    if not INSTRUCTIONS.exists():
        return ""
    counted = json.loads(INSTRUCTIONS.read_text(encoding="utf-8"))
    counts = {isa: entry["instructions"] for isa, entry in counted["isas"].items()}
    kernels = ("uniform float32", "normal float32", "trunc_normal float32", "uniform bfloat16")
    note = "; ".join(
        f"{escape(isa)}: {escape(entry['compiler'])}, {escape(entry['how'])}" for isa, entry in counted["isas"].items()
    )
    bars = _plots(plots.instruction_bars(counts, kernel) for kernel in kernels)
    return bars + tables.instructions(counts) + f'<p class="note">{note}</p>'


def _environment(at: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in at["versions"].items() if version)
    entries: Sequence[tuple[str, object]] = (
        ("device", at.get("gpu") or at["cpu"]),
        ("cores, instruction set", f"{at['cores']}, {at['isa']}"),
        ("threads measured", ", ".join(map(str, at["threads"]))),
        ("versions", versions),
        ("commit, format", f"{at['commit']}, {at['format']}"),
        ("time, load before", f"{at['time']}, {at['load_average']:.2f}"),
    )
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in entries) + "</dl>"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
