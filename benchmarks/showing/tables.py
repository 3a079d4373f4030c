"""The tables of a page, from rows of a run's JSON, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ..contestants import BASELINE, CAST, EAGER, OURS, OURS_ALONE, OURS_PATCHED_ALONE, STORES
from ..measuring.row import STORE_LIMIT
from .curves import fitted

__all__ = ["fill", "instructions", "models", "neighbours", "quality", "scaling", "skipped", "targets"]

AGAINST = ((OURS_ALONE, OURS_PATCHED_ALONE), (BASELINE, EAGER))
Row = dict[str, Any]
Cell = str | tuple[str, str]  # text, or text and its class


def fill(rows: Sequence[Row]) -> str:
    """All rows of one tensor and of fresh memory, folded away."""
    lines: list[list[Cell]] = []
    for row in (row for row in rows if row["case"]["group"] in ("fill", "fresh", "small") and OURS in row["rates"]):
        case, rate, ratios = row["case"], row["rates"][OURS], row["ratios"][OURS]
        where = f"{case['group']}, {case['label']}" if case["group"] != "fill" else case["label"]
        cells: list[Cell] = [where, case["dtype"], case["size"], str(case["threads"] or "GPU")]
        cells += [f"{rate['g_values']:.3g}", f"{rate['gb']:.3g}", _ratio(ratios.get(BASELINE) or ratios.get(CAST))]
        cells += [_median(ratios.get("fill_")), _median(ratios.get(STORE_LIMIT)), _peer(ratios), _median(row["cycles"])]
        lines.append(cells)
    header = [
        "ours",
        "dtype",
        "values",
        "threads",
        "G values/s",
        "GB/s",
        "× nn.init",
        "of fill_",
        "of store limit",
        "× fastest other",
    ]
    return _folded(f"all {len(lines)} rows", _table([*header, "cycles/value"], lines)) if lines else ""


def _peer(ratios: dict[str, Any]) -> str:
    peers = {name: ratio["median"] for name, ratio in ratios.items() if name not in (BASELINE, CAST, STORE_LIMIT, *STORES)}
    name = min(peers, key=lambda peer: peers[peer], default="")
    return f"{peers[name]:.3g} {name}" if name else ""


def scaling(rows: Sequence[Row]) -> str:
    """Lines through time against size."""
    curves: dict[tuple[str, str, int, str], list[tuple[int, float]]] = {}
    for row in (row for row in rows if row["case"]["group"] == "scaling"):
        case = row["case"]
        for name in (OURS, BASELINE, "fill_"):
            if name in row["seconds"]:
                key = case["label"], case["dtype"], case["threads"], name
                curves.setdefault(key, []).append((case["values"], row["seconds"][name]["median"]))
    lines: list[list[Cell]] = []
    for (label, dtype, threads, name), points in curves.items():
        if line := fitted(points):
            numbers = [f"{line.overhead * 1e6:.3g}", f"{line.rate * 1e-9:.3g}", f"{line.slope:.3f}"]
            lines.append([label, dtype, str(threads), name, *numbers])
    header = ["distribution", "dtype", "threads", "contestant", "overhead, µs", "G values/s", "slope"]
    return _folded("time = overhead + values / rate", _table(header, lines)) if lines else ""


def models(rows: Sequence[Row]) -> str:
    """Every contestant of every model."""
    lines: list[list[Cell]] = []
    for row in (row for row in rows if row["case"]["group"] in ("model", "construct") and row["seconds"]):
        case, usual = row["case"], EAGER if row["case"]["group"] == "construct" else BASELINE
        for name, seconds in row["seconds"].items():
            peak = f"{row['peaks'][name] / 2**20:.0f}" if name in row.get("peaks", {}) else ""
            what = "built" if case["group"] == "construct" else "in place"
            cells: list[Cell] = [
                f"{case['label']}, {what}",
                case["dtype"],
                f"{case['values'] / 1e6:.0f} M",
                str(case["threads"] or "GPU"),
            ]
            lines.append([*cells, name, f"{seconds['median'] * 1e3:.4g}", peak, _ratio(row["ratios"].get(name, {}).get(usual))])
    whys = dict.fromkeys(f"{row['case']['label']}: {row['case']['why']}" for row in rows if row["case"]["group"] == "model")
    note = f'<p class="note">{"<br>".join(map(escape, whys))}</p>' if whys else ""
    header = ["model", "dtype", "values", "threads", "contestant", "ms", "peak MiB added", "× the usual way"]
    return _table(header, lines) + note if lines else ""


def neighbours(rows: Sequence[Row]) -> str:
    """Every contestant in every company, and how many times as fast as alone and as the usual way it is."""
    lines: list[list[Cell]] = []
    for row in (row for row in rows if row["case"]["group"] == "neighbour"):
        case = row["case"]
        for name, seconds in row["seconds"].items():
            ratios = row["ratios"].get(name, {})
            against = [_ratio(ratios.get(one) or ratios.get(other)) for one, other in AGAINST]
            values = case["size"] if case["call"] != "construct" else f"{case['values'] / 1e6:.0f} M, built"
            lines.append([case["label"], values, str(case["threads"]), name, f"{seconds['median'] * 1e6:.4g}", *against])
    header = ["company", "values", "threads", "contestant", "µs", "× one thread", "× the usual way"]
    return _folded(f"all {len(lines)} rows", _table(header, lines)) if lines else ""


def quality(rows: Sequence[Row]) -> str:
    """p of every finding and what is not judged; counts in the tails apart."""
    drawn = [row for row in rows if not row["skipped"]]
    if not drawn:
        return ""
    every = [name for name in dict.fromkeys(name for row in drawn for name in row["findings"]) if name != "distinct"]
    tails = [name for name in every if name.startswith("beyond")]
    in_tails = [row for row in drawn if tails and tails[0] in row["findings"]]
    header = ["source", *(f"{name} σ" for name in tails)]
    counts = _table(header, [_tail_cells(row, tails) for row in in_tails], "count / expected") if in_tails else ""
    return counts + _findings(drawn, [name for name in every if name not in tails])


def _tail_cells(row: Row, names: Sequence[str]) -> list[Cell]:
    found = [row["findings"][name] for name in names]
    return [row["source"], *((f"{f['count']} / {f['expected']:.3g}", "bad" if f["seen"] else "") for f in found)]


def _findings(drawn: Sequence[Row], names: Sequence[str]) -> str:
    lines: list[list[Cell]] = []
    for row in drawn:
        cells: list[Cell] = [row["source"], row["law"], row["dtype"]]
        for name in names:
            found = row["findings"].get(name)
            text = "" if found is None else f"{found['p']:.1g}"
            cells.append((text, "bad" if found and found["seen"] else ""))
        bias, alike = row["findings"]["mean"], row["findings"]["distinct"]["alike_as_log2"]
        lines.append([*cells, f"{bias['bias']:+.1e}", "" if alike is None else f"{alike:.1f}"])
    header = ["source", "law", "dtype", *names, "bias, sigmas", "values alike, log₂"]
    return _table(header, lines, "p of each statistic")


def instructions(counts: dict[str, dict[str, float]]) -> str:
    """All kernels, a column for each instruction set."""
    kernels = dict.fromkeys(kernel for of in counts.values() for kernel in of)
    lines: list[list[Cell]] = [[name, *(f"{of[name]:g}" if name in of else "" for of in counts.values())] for name in kernels]
    return _folded("all kernels", _table(["kernel", *counts], lines))


def targets(verdicts: Sequence[Row]) -> str:
    """Target, measured, met?"""
    lines: list[list[Cell]] = []
    colours = {"stretch": "good", "yes": "good", "no": "bad"}
    for verdict in (verdict for verdict in verdicts if verdict["measured"]):
        target = verdict["target"]
        stretch = "" if target["stretch"] is None else f"{target['stretch']:g}"
        met = (verdict["met"], colours.get(verdict["met"], "middling"))
        lines.append(
            [
                verdict["row"],
                target["subject"],
                target["against"],
                f"{target['must']:g}",
                stretch,
                _ratio(verdict["measured"]),
                met,
            ]
        )
    return _table(["row", "who", "against", "must", "stretch", "measured", "met?"], lines) if lines else ""


def skipped(rows: Sequence[Row], quality: Sequence[Row]) -> str:
    """Who, why, in how many rows."""
    reasons: dict[tuple[str, str], int] = {}
    for row in rows:
        for pair in row["skipped"].items():
            reasons[pair] = reasons.get(pair, 0) + 1
    for row in (row for row in quality if row["skipped"]):
        pair = row["source"], row["skipped"]
        reasons[pair] = reasons.get(pair, 0) + 1
    lines: list[list[Cell]] = [[name, (why, "text"), str(times)] for (name, why), times in reasons.items()]
    return _folded(f"{len(lines)} reasons", _table(["who", "why", "rows"], lines)) if lines else ""


def _table(header: Sequence[str], lines: Iterable[Sequence[Cell]], caption: str = "") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(map(_cell, cells)) + "</tr>" for cells in lines)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    text, kind = cell if isinstance(cell, tuple) else (cell, "")
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _ratio(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.3g} [{spread['p25']:.3g}–{spread['p75']:.3g}]"


def _median(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.3g}"
