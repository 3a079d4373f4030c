"""Page 11 as a notebook: ``python examples/guide/notebook.py`` writes it from the page, so the two cannot differ.

Sessions become cells, what they print becomes their outputs. The format is plain JSON (nbformat 4.5), so no library of Jupyter
is needed to write it; the test runs the cells one after another in one namespace, as a kernel does.
"""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "11_tutorials.md"
NOTEBOOK = Path(__file__).parent / "11_tutorials.ipynb"
FROM_HERE = "../../docs/guide/"

Cell = dict[str, Any]


def notebook(page: str) -> dict[str, Any]:
    """The page's text and sessions, in their order."""
    found = list(_cells(page))
    for number, cell in enumerate(found):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cells(page: str) -> Iterator[Cell]:
    for number, part in enumerate(re.split(r"^```python\n(.*?)^```\n", page, flags=re.DOTALL | re.MULTILINE)):
        if number % 2:
            yield from _of_session(part)
        elif part.strip():
            text = re.sub(r"\]\((?!https?:)([^)]+)\)", rf"]({FROM_HERE}\1)", part.strip())
            yield {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _of_session(session: str) -> Iterator[Cell]:
    """A cell for each example that prints something, with the silent ones before it."""
    waiting = ""
    for example in doctest.DocTestParser().get_examples(session):
        waiting += example.source
        if example.want:
            yield _code(waiting, example.want.rstrip("\n"), example.exc_msg)
            waiting = ""
    if waiting:
        yield _code(waiting, "", None)


def _code(source: str, want: str, error: str | None) -> Cell:
    outputs: list[Cell] = []
    metadata: Cell = {}
    last = source.rstrip().splitlines()[-1]
    if error is not None:
        name, _, text = error.strip().partition(": ")
        outputs, metadata = (
            [{"output_type": "error", "ename": name, "evalue": text, "traceback": []}],
            {"tags": ["raises-exception"]},
        )
    elif want and last.startswith(" "):  # printed by a loop
        outputs = [{"output_type": "stream", "name": "stdout", "text": _lines(want + "\n")}]
    elif want:
        data = {"text/plain": _lines(want)}
        outputs = [{"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data}]
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "source": _lines(source.rstrip("\n")),
        "outputs": outputs,
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def as_text(page: str) -> str:
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(as_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
