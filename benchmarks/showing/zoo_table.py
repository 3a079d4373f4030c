"""The suite ``zoo`` in the terminal, in its JSON file, and as the tables of docs/ecosystem.md.

A run may be a part of the zoo: what it measures takes the place of the same rows in the file, and the others stay.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..measuring.environment import environment
from ..suites import zoo
from . import results_file
from .readme_table import replace_tables

__all__ = ["PAGE", "RESULTS", "SLOWER", "Part", "render", "run", "update"]

RESULTS = Path(__file__).parents[1] / "results" / "zoo.json"
PAGE = Path(__file__).parents[2] / "docs" / "ecosystem.md"
SLOWER = 1.1  # times eager: what is named
LARGE = 10**6  # values, from which on a slower one is named
SIZES = (("below 10^5", 0, 10**5), ("10^5 to 10^6", 10**5, LARGE), ("10^6 to 10^7", LARGE, 10**7), ("from 10^7", 10**7, 10**12))
WAYS = ("patched", "deferred")
UNWRITTEN = "Tensors that the library's own code never writes; `deferred()` refuses them by name, unless rules fill them:"
TIMES = ("patched, median", "worst", "deferred, median", "worst")
Row = dict[str, Any]


class Part(NamedTuple):
    """What of the zoo is measured.

    Args:
        libraries: by name; none is all of them.
        tasks: some of "values", "times" and "first".
        part, parts: every parts-th configuration of a library, from the part-th on; parts are counted from 1.
        only: configurations whose names have this in them.
        limit: seconds for one configuration and task.
    """

    libraries: Sequence[str] = ()
    tasks: Sequence[str] = ("values", "times", "first")
    part: int = 1
    parts: int = 1
    only: str = ""
    limit: float = 60.0


ALL = Part()


def run(file: Path | None, threads: Sequence[int], part: Part = ALL) -> int:
    """Measures, shows a line for each configuration, and writes the file after each; 1 if a model differs."""
    found = _found_before(file)
    rows: dict[tuple[str, str], Row] = {(row["library"], row["configuration"]): row for row in found["rows"]}
    context = environment(threads)
    for library in part.libraries or zoo.LIBRARIES:
        begun = time.perf_counter()
        about = zoo.run("version", library, limit=part.limit)
        found["libraries"][library] = about
        if "failed" in about:
            print(f"not tried: {library}: {about['failed']}", flush=True)
            continue
        names = zoo.configurations(library)
        rows = {key: row for key, row in rows.items() if key[0] != library or key[1] in names}
        for name in [name for name in names[part.part - 1 :: part.parts] if part.only in name]:
            row = rows.setdefault((library, name), {"library": library, "configuration": name})
            for task in part.tasks:
                row[task] = zoo.run(task, library, name, part.limit)
            print(_line(row, part.tasks), flush=True)
            if not part.only:
                _took(found["seconds"].setdefault(library, {}), part, time.perf_counter() - begun)
            _write(file, found | {"environment": context, "rows": _in_order(rows)})
    _write(file, found | {"environment": context, "rows": _in_order(rows)})
    if file is not None:
        print(f"written: {file}")
    return 1 if any(_state(row) == "differs" for row in rows.values()) else 0


def _write(file: Path | None, run: Row) -> None:
    if file is not None:
        results_file.write(file, run)


def _found_before(file: Path | None) -> dict[str, Any]:
    if file is not None and file.exists():
        return results_file.read(file)
    return {"schema": results_file.SCHEMA, "suite": "zoo", "environment": {}, "libraries": {}, "seconds": {}, "rows": []}


def _took(seconds: dict[str, int], part: Part, now: float) -> None:
    """Keeps the seconds of this part, and of the other parts if the library was divided so before."""
    tasks = "+".join(part.tasks)
    for name in [name for name in seconds if name.startswith(tasks) and not name.endswith(f"/{part.parts}")]:
        del seconds[name]
    seconds[f"{tasks} {part.part}/{part.parts}"] = round(now)


def _in_order(rows: dict[tuple[str, str], Row]) -> list[Row]:
    places = {(library, name): i for library in zoo.LIBRARIES for i, name in enumerate(zoo.configurations(library))}
    libraries = list(zoo.LIBRARIES)
    return [rows[key] for key in sorted(rows, key=lambda key: (libraries.index(key[0]), places.get(key, 0)))]


def _line(row: Row, tasks: Sequence[str]) -> str:
    parts = [f"{row['library']} {row['configuration']}"]
    if "values" in tasks:
        parts.append(": ".join(filter(None, (_state(row), _why(row)))))
    if "times" in tasks:
        times = row["times"]
        shown = ", ".join(f"{way} {times['ratios'][way]:.2f}" for way in WAYS) if "ratios" in times else times["failed"]
        parts.append(f"x eager: {shown}")
    if "first" in tasks:
        first = row["first"]
        shown = ", ".join(f"{way} {each * 1e3:.3g}" for way, each in first.get("seconds", {}).items()) or first["failed"]
        parts.append(f"first, ms: {shown}")
    return "; ".join(parts)


# ---- one row ---------------------------------------------------------------------------------------------------------


def _state(row: Row) -> str:
    """A word: "not built" is by the library; "unwritten" that deferred() refuses what the library's code only allocates."""
    values = row.get("values")
    if values is None:
        return "not compared"
    if "failed" in values:
        return "not built"
    if values["unwritten"] and "only allocates" in values["deferred"].get("failed", "") and values["patched"].get("count") == 0:
        return "unwritten"
    return "equal" if all(found.get("count") == 0 for found in _compared(values).values()) else "differs"


def _compared(values: Row) -> Row:
    """What was compared with eager, by what it is called."""
    found = {way: values[way] for way in WAYS if way in values}
    return found | ({"patched with draws": found["patched"]["draws"]} if "draws" in found.get("patched", {}) else {})


def _why(row: Row) -> str:
    """Of a row that is not equal, in a line."""
    values = row.get("values", {})
    if "failed" in values:
        return str(values["failed"])
    said = []
    for way, found in _compared(values).items():
        if "failed" in found:
            said.append(f"{way}: {found['failed']}")
        elif found.get("count"):
            more = f" (and {found['count'] - 1} more)" if found["count"] > 1 else ""
            said.append(f"{way}: {found['differences'][0]}{more}")
    return "; ".join(said)


def _parameters(row: Row) -> int:
    """Values of all parameters."""
    return int(row.get("values", {}).get("parameters", 0))


def _slower(row: Row) -> bool:
    return any(ratio > SLOWER for ratio in row.get("times", {}).get("ratios", {}).values())


# ---- the page --------------------------------------------------------------------------------------------------------


def update(check: bool = False) -> bool:
    """Writes the tables into the page, or only compares; whether they were there already."""
    return replace_tables(PAGE, render(results_file.read(RESULTS)), check)


def render(run: dict[str, Any]) -> str:
    """The Markdown between the markers."""
    rows = run["rows"]
    parts = [_machine(run), _libraries(run), _slow(rows), _first(run), _different(rows), _torchs(rows)]
    return "\n\n".join(part for part in parts if part)


def _machine(run: dict[str, Any]) -> str:
    at = run["environment"]
    seconds = sum(each for library in run["seconds"].values() for each in library.values())
    return (
        f"Measured on {at['cpu']}, {at['cores']} cores, {at['isa']}, torch {at['versions']['torch']}, {at['time'][:10]}, "
        f"commit {at['commit']}. All of it took {seconds / 60:.0f} minutes."
    )


def _libraries(run: dict[str, Any]) -> str:
    header = ["library", "version", "tried", "built", "equal", "covered", "with draws", *TIMES]
    lines = []
    for library, about in run["libraries"].items():
        rows = [row for row in run["rows"] if row["library"] == library]
        if "failed" in about:
            lines.append([library, "not tried", *["-"] * (len(header) - 2)])
            continue
        built = [row for row in rows if _state(row) in ("equal", "differs", "unwritten")]
        equal = sum(_state(row) == "equal" for row in built)
        cells = [
            library,
            about["version"],
            str(len(rows)),
            str(len(built)),
            str(equal),
            _covered(built),
            _covered(built, "ours"),
        ]
        for way in WAYS:
            ratios = [row["times"]["ratios"][way] for row in rows if "ratios" in row.get("times", {})]
            cells += [f"{statistics.median(ratios):.2f}", f"{max(ratios):.2f}"] if ratios else ["-", "-"]
        lines.append(cells)
    return _markdown(header, lines)


def _covered(rows: Sequence[Row], draws: str = "torch") -> str:
    """The share of random values that ``patched()`` fills, or ``patched(draws="ours")``."""
    found = [row["values"]["patched"] for row in rows if "filled_values" in row["values"]["patched"]]
    if draws == "ours":
        found = [each.get("draws", each) for each in found]
    ours = sum(each["filled_values"] for each in found)
    torchs = sum(sum(each["drawn_values"].values()) for each in found)
    return f"{ours / (ours + torchs):.2%}" if ours + torchs else "-"


def _slow(rows: Sequence[Row]) -> str:
    timed = [row for row in rows if "ratios" in row.get("times", {})]
    slow = sorted(filter(_slower, timed), key=lambda row: -max(row["times"]["ratios"].values()))
    header = ["values of parameters", "timed", "patched, median", "slower", "deferred, median", "slower"]
    lines = []
    for words, least, most in SIZES:
        these = [row for row in timed if least <= _parameters(row) < most]
        ratios = {way: [row["times"]["ratios"][way] for row in these] for way in WAYS}
        counts = [(f"{statistics.median(each):.2f}", str(sum(r > SLOWER for r in each))) for each in ratios.values() if each]
        if these:
            lines.append([words, str(len(these)), *(cell for pair in counts for cell in pair)])
    said = (
        f"Slower than eager by more than {SLOWER - 1:.0%}: {len(slow)} of {len(timed)} configurations that were timed. "
        f"By size of the model:\n\n{_markdown(header, lines)}"
    )
    slow = [row for row in slow if _parameters(row) >= LARGE]
    if not slow:
        return said
    said += f"\n\nThose of at least {LARGE:,} values:"
    lines = [
        [
            row["library"],
            f"`{_short(row['configuration'])}`",
            f"{row['times']['seconds']['eager']['median'] * 1e3:.3g}",
            *(f"{row['times']['ratios'][way]:.2f}" for way in WAYS),
        ]
        for row in slow
    ]
    return f"{said}\n\n{_markdown(['library', 'configuration', 'eager, ms', 'patched', 'deferred'], lines)}"


def _first(run: dict[str, Any]) -> str:
    """The first build in a process, where it was measured."""
    lines = []
    for library in run["libraries"]:
        found = [
            row["first"]["seconds"] for row in run["rows"] if row["library"] == library and "seconds" in row.get("first", {})
        ]
        if found:
            ways = (statistics.median(each[way] for each in found) for way in ("eager", *WAYS))
            lines.append([library, str(len(found)), *(f"{seconds * 1e3:.3g}" for seconds in ways)])
    if not lines:
        return ""
    header = ["library", "configurations", "eager, ms", "patched, ms", "deferred, ms"]
    return "The first build in a process, medians:\n\n" + _markdown(header, lines)


def _different(rows: Sequence[Row]) -> str:
    parts = []
    for state, said in (("differs", "Not equal"), ("not built", "Not built by the library itself, and so not compared")):
        found = [row for row in rows if _state(row) == state]
        if found:
            listed = [f"* {row['library']} `{_short(row['configuration'])}`: {_escaped(_why(row))}" for row in found]
            parts.append("\n".join([f"{said}:", "", *listed]))
    unwritten = [(row, names) for row in rows if (names := row.get("values", {}).get("unwritten"))]
    if unwritten:
        listed = [
            f"* {row['library']} `{_short(row['configuration'])}`: `{names[0]}`"
            + (f" and {len(names) - 1} more" if names[1:] else "")
            for row, names in unwritten
        ]
        parts.append("\n".join([UNWRITTEN, "", *listed]))
    late = [row for row in rows if "failed" in row.get("times", {}) and _state(row) not in ("not built", "unwritten")]
    if late:
        listed = [f"* {row['library']} `{_short(row['configuration'])}`: {_escaped(row['times']['failed'])}" for row in late]
        parts.append("\n".join(["Not timed:", "", *listed]))
    if missing := Counter(row["library"] for row in rows if "times" not in row):
        parts.append(
            "Not timed, because no run came to them: " + ", ".join(f"{n} of {name}" for name, n in missing.items()) + "."
        )
    return "\n\n".join(parts)


def _torchs(rows: Sequence[Row]) -> str:
    """Which functions of torch draw what ``patched()`` does not, and what is left of it with ``draws="ours"``."""
    values, models, left = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    tried = False
    for row in rows:
        patched = row.get("values", {}).get("patched", {})
        for function, count in patched.get("drawn_values", {}).items():
            values[row["library"], function] += count
            models[row["library"], function] += 1
        for function, count in patched.get("draws", {}).get("drawn_values", {}).items():
            left[row["library"], function] += count
        tried = tried or "draws" in patched
    if not values:
        return ""
    lines = [
        [library, f"`{function}`", str(models[library, function]), f"{count:,}"]
        + ([f"{left[library, function]:,}"] if tried else [])
        for (library, function), count in sorted(values.items(), key=lambda item: (item[0][0], -item[1]))
    ]
    header = ["library", "drawn by", "models", "values", *(['with `draws="ours"`'] if tried else [])]
    return "Left to torch under `patched()`:\n\n" + _markdown(header, lines)


def _short(configuration: str) -> str:
    return configuration if len(configuration) <= 80 else configuration[:77] + "..."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
