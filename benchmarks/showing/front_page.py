"""README's measured part: three lines and one chart, from the same committed JSON as the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .plots import bars

__all__ = ["BEGIN", "CHART", "END", "README", "chart", "lines", "update"]

README = Path(__file__).parents[2] / "README.md"
CHART = Path(__file__).parents[2] / "docs" / "images" / "speed.svg"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
# On a white and on a dark page alike.
COLOURS = {"ink": "#808a94", "quiet": "#808a94", "grid": "#80808040", "series-ours": "#2f81f7"}

Spread = tuple[float, float, float]  # quartiles with the median between


class Bar(NamedTuple):
    """A row of the results that the chart shows: how many times as fast, against whom."""

    name: str
    group: str
    label: str
    dtype: str
    ours: str
    usual: str


BARS = (
    Bar("trunc_normal_, float32", "fill", "trunc_normal std=.02", "float32", "ours", "nn.init"),
    Bar("normal_, float32", "fill", "normal", "float32", "ours", "nn.init"),
    Bar("uniform_, float32", "fill", "uniform", "float32", "ours", "nn.init"),
    Bar("uniform_, bfloat16", "fill", "uniform", "bfloat16", "ours", "nn.init"),
    Bar("GPT-2 XL by rules", "model", "GPT-2 XL", "float32", "ours", "nn.init"),
    Bar("Mixtral-8x7B by rules", "model", "Mixtral-8x7B", "bfloat16", "ours", "nn.init"),
    Bar("Llama-3-8B, its own code", "construct", "Llama-3-8B", "bfloat16", "ours, deferred", "eager"),
    Bar("ResNet-50, its own code", "construct", "ResNet-50", "float32", "ours, patched", "eager"),
)
SIZE = "2^25"


def _spread(run: dict[str, Any], bar: Bar) -> Spread:
    """Of the row with the most threads.

    Raises:
        LookupError: the run has no such row.
    """
    found = [
        row
        for row in run["rows"]
        if (row["case"]["group"], row["case"]["label"], row["case"]["dtype"]) == (bar.group, bar.label, bar.dtype)
        and (bar.group != "fill" or row["case"]["size"] == SIZE)
        and bar.usual in row["ratios"].get(bar.ours, {})
    ]
    if not found:
        raise LookupError(f"readme-table: a row for {bar.name} is needed in cpu.json. Run `make bench`.")
    ratio = max(found, key=lambda row: row["case"]["threads"])["ratios"][bar.ours][bar.usual]
    return ratio["p25"], ratio["median"], ratio["p75"]


def lines(run: dict[str, Any]) -> str:
    """Who the library is for, each with one figure of this run."""
    by_name = {bar.name: f"**{_spread(run, bar)[1]:.3g} times** as fast" for bar in BARS}
    at = run["environment"]
    return "\n".join(
        [
            "Use it if",
            "",
            "* you **call `torch.nn.init`**: the same functions, on all cores; `normal_` on 2^25 values is "
            f"{by_name['normal_, float32']};",
            "* you **initialise whole models**: rules fill every parameter in one pass; GPT-2 XL is "
            f"{by_name['GPT-2 XL by rules']};",
            "* you **build models whose code initialises them**: it is recorded instead of run, and what it would overwrite is "
            f"never drawn; Llama-3-8B is {by_name['Llama-3-8B, its own code']}.",
            "",
            "![How many times as fast as with torch.nn.init](docs/images/speed.svg)",
            "",
            f"<sub>Against `torch.nn.init` on {at['cpu']}, {at['cores']} cores, torch {at['versions']['torch']}, "
            f"{at['time'][:10]}; medians with quartiles of interleaved runs. Of models beyond 160 million values a part. "
            "No GPU has been measured yet. [All tables](docs/benchmarks.md).</sub>",
        ]
    )


def chart(run: dict[str, Any]) -> str:
    """The bars as a file of SVG for any page."""
    shown = list(reversed(BARS))
    text = bars(
        "speed",
        "",
        "times as fast as with torch.nn.init",
        [bar.name for bar in shown],
        [_spread(run, bar) for bar in shown],
        one=True,
        colour="ours",
    )
    for variable, colour in COLOURS.items():
        text = text.replace(f"var(--{variable})", colour)
    if "var(--" in text:
        raise ValueError(
            f"chart: a colour for every variable is required, got {text[text.index('var(--') :][:40]!r} in the SVG."
        )
    return text.replace("<svg", '<svg width="640"', 1) + "\n"


def update(run: dict[str, Any], check: bool = False) -> bool:
    """Writes lines and chart, or only compares; whether both were there already."""
    before = README.read_text(encoding="utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise LookupError(f"readme-table: README.md must have the lines {BEGIN} and {END}, one after the other.")
    wanted = {README: f"{head}{BEGIN}\n{lines(run)}\n{END}{tail}", CHART: chart(run)}
    changed = list(_different(wanted))
    if not check:
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
    return not changed


def _different(wanted: dict[Path, str]) -> Iterator[Path]:
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield path
