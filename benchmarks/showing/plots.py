"""The plots of a page, each from rows of a run's JSON: bars with quartiles, curves, tails. Returns SVG, or nothing to show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import stats  # type: ignore[import-untyped]

from ..contestants import BASELINE, CAST, EAGER, OURS, STORES
from .drawing import COLOURS, INK, QUIET, figure, svg

__all__ = ["bars", "instruction_bars", "rate_bars", "scaling_curves", "small_bars", "speedup_bars", "tail_plot"]

Row = dict[str, Any]
BAR, MARGIN = 0.24, 0.85  # inches of a bar, and of what surrounds the bars


def rate_bars(rows: Sequence[Row], label: str, threads: int) -> str:
    """Values a second of everyone in float32, at the largest size that most take part in."""
    chosen = [row for row in _of(rows, "fill", threads) if row["case"]["label"] == label and row["case"]["dtype"] == "float32"]
    chosen = [row for row in chosen if OURS in row["seconds"]]
    if not chosen:
        return ""
    row = max(chosen, key=lambda row: (len(row["seconds"]), row["case"]["values"]))
    names = sorted((name for name in row["seconds"] if name not in STORES), key=lambda name: row["rates"][name]["g_values"])
    values = row["case"]["values"]
    spreads = [_rate_spread(row["seconds"][name], values) for name in names]
    title = f"{label}, {_threads(threads)}, {row['case']['size']} values"
    return bars(f"rates-{_id(label)}-{threads}", title, "10⁹ values a second", names, spreads)


def speedup_bars(rows: Sequence[Row], group: str, threads: int) -> str:
    """How many times as fast as the usual way ours is, a model each."""
    names, spreads = [], []
    for row in reversed(_of(rows, group, threads)):
        usual = EAGER if group == "construct" else BASELINE
        for ours, ratios in row["ratios"].items():
            if usual in ratios and ours in (OURS, "ours, deferred", "ours, patched"):
                suffix = "" if ours == OURS else f" ({ours.removeprefix('ours, ')})"
                names.append(row["case"]["label"] + suffix)
                spreads.append(_three(ratios[usual]))
    if not names:
        return ""
    against = "construction by the library's own code" if group == "construct" else "a loop over torch.nn.init"
    title = f"{'Built from nothing' if group == 'construct' else 'Filled in place'}, {_threads(threads)}"
    return bars(f"{group}-{threads}", title, f"times as fast as {against}", names, spreads, one=True, colour="ours")


def small_bars(rows: Sequence[Row], threads: int) -> str:
    """Small tensors: how many times as fast a call is."""
    chosen = [row for row in _of(rows, "small", threads) if BASELINE in row["ratios"].get(OURS, {})]
    names = [f"{row['case']['call']} {row['case']['size']}" for row in reversed(chosen)]
    spreads = [_three(row["ratios"][OURS][BASELINE]) for row in reversed(chosen)]
    if not names:
        return ""
    title = f"Small tensors, {_threads(threads)}"
    return bars(f"small-{threads}", title, "times as fast as torch.nn.init", names, spreads, one=True, colour="ours")


def instruction_bars(counts: dict[str, dict[str, float]], kernel: str) -> str:
    """Instructions per value of one kernel, a vector instruction set each."""
    found = {isa: of[kernel] for isa, of in counts.items() if kernel in of}
    if not found:
        return ""
    names = sorted((isa for isa in found if isa != "scalar"), key=lambda isa: -found[isa])
    spreads = [(found[isa], found[isa], found[isa]) for isa in names]
    return bars(f"instructions-{_id(kernel)}", kernel, "instructions a value", names, spreads, colour="ours")


def scaling_curves(rows: Sequence[Row], label: str, dtype: str) -> str:
    """Values a second against size, for the least and the greatest number of threads."""
    chosen = [row for row in rows if row["case"]["group"] == "scaling" and _kind(row) == (label, dtype)]
    counts = sorted({row["case"]["threads"] for row in chosen})
    if not counts:
        return ""
    styles = {OURS: COLOURS["ours"], BASELINE: COLOURS["nn.init"], "fill_": COLOURS["store"]}
    with figure(2.9) as (made, axes):
        for threads, line in zip(dict.fromkeys((counts[0], counts[-1])), ("--", "-"), strict=False):
            for name, colour in styles.items():
                points = [row for row in chosen if row["case"]["threads"] == threads and name in row["seconds"]]
                x = [row["case"]["values"] for row in points]
                low, middle, high = zip(
                    *(_rate_spread(row["seconds"][name], row["case"]["values"]) for row in points), strict=True
                )
                axes.plot(x, middle, line, color=colour, linewidth=1.6, label=f"{name}, {threads}")
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(title=f"{label}, {dtype}", xlabel="values", ylabel="10⁹ values a second")
        made.legend(loc="outside lower center", ncols=3, fontsize=8)
        return svg(made, f"scaling-{_id(label)}-{dtype}", f"values a second against size, {label} in {dtype}")


def tail_plot(quality: Sequence[Row]) -> str:
    """Counts beyond some sigmas over what is expected, with the interval in which 95 % of Poisson counts would lie."""
    drawn = [row for row in quality if any(name.startswith("beyond") for name in row["findings"]) and not row["control"]]
    if not drawn:
        return ""
    drawn = drawn[::-1]
    names = [name for name in drawn[0]["findings"] if name.startswith("beyond")]
    colours = (COLOURS["other"], COLOURS["second"], COLOURS["third"], COLOURS["nn.init"])
    with figure(0.34 * len(drawn) + 1.2) as (made, axes):
        for at, (name, colour) in enumerate(zip(names, colours, strict=False)):
            for y, row in enumerate(drawn):
                found = row["findings"][name]
                if found["expected"] < 1.0:
                    continue  # no count would say anything
                count, expected = found["count"], found["expected"]
                low, high = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0, stats.chi2.ppf(0.975, 2 * count + 2) / 2
                place = y + 0.27 - 0.18 * at
                axes.plot([low / expected, min(high / expected, 3.0)], [place, place], color=colour, linewidth=1.4)
                axes.plot(count / expected, place, "o", color=colour, markersize=4, label=f"{name} σ")
        axes.axvline(1.0, color=INK, linewidth=0.9)
        axes.set_yticks(range(len(drawn)), [row["source"] for row in drawn])
        axes.set_xlim(0, 3)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="count / expected; the line is the 95 % interval", title="Tails of normal, float32")
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one of each name
        made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, handletextpad=0.2)
        return svg(made, "tails", "counts of values beyond 4, 5, 5.77 and 6 sigma over expectation")


def bars(
    name: str,
    title: str,
    unit: str,
    names: Sequence[str],
    spreads: Sequence[tuple[float, float, float]],
    one: bool = False,
    colour: str = "",
) -> str:
    """Horizontal bars, medians with quartiles as a line; ``one`` marks 1."""
    colours = [COLOURS[colour] if colour else _colour(who) for who in names]
    with figure(BAR * len(names) + MARGIN) as (made, axes):
        middle = [spread[1] for spread in spreads]
        axes.barh(range(len(names)), middle, color=colours, height=0.7)
        for y, (low, median, high) in enumerate(spreads):
            axes.plot([low, high], [y, y], color=INK, linewidth=1.0)
            axes.annotate(
                f"{median:.3g}", (max(median, high), y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        if one:
            axes.axvline(1.0, color=QUIET, linewidth=0.9, linestyle=":")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1.15 * max(high for _, _, high in spreads))
        axes.grid(visible=False, axis="y")
        axes.set(title=title, xlabel=unit)
        return svg(made, name, f"{title}: {unit}")


def _colour(who: str) -> str:
    if who.startswith(OURS):
        return COLOURS["ours"]
    return COLOURS["nn.init"] if who in (BASELINE, CAST, EAGER) else COLOURS["other"]


def _of(rows: Sequence[Row], group: str, threads: int) -> list[Row]:
    return [row for row in rows if (row["case"]["group"], row["case"]["threads"]) == (group, threads)]


def _kind(row: Row) -> tuple[str, str]:
    return row["case"]["label"], row["case"]["dtype"]


def _rate_spread(seconds: dict[str, float], values: int) -> tuple[float, float, float]:
    return values / seconds["p75"] * 1e-9, values / seconds["median"] * 1e-9, values / seconds["p25"] * 1e-9


def _three(ratio: dict[str, float]) -> tuple[float, float, float]:
    return ratio["p25"], ratio["median"], ratio["p75"]


def _threads(count: int) -> str:
    return {0: "on the GPU", 1: "1 thread"}.get(count, f"{count} threads")


def _id(label: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in label)


def kinds(rows: Sequence[Row], group: str) -> Iterator[tuple[str, str]]:
    """Labels and dtypes of a group, in order."""
    yield from dict.fromkeys(_kind(row) for row in rows if row["case"]["group"] == group)
