"""docs/recipes.md: its snippets run where their libraries are installed, print what the page says, and stay short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools import run_recipes
from tools.run_recipes import NotInstalledError, Snippet

TEXT = run_recipes.PAGE.read_text(encoding="utf-8")
SNIPPETS = list(run_recipes.snippets(TEXT))
LIBRARIES = {
    "accelerate",
    "deepspeed",
    "diffusers",
    "lightning",
    "megatron",
    "peft",
    "timm",
    "torch_geometric",
    "torchtitan",
    "transformers",
}


@pytest.mark.peer
@pytest.mark.parametrize("together", run_recipes.runs(TEXT), ids=lambda together: f"{together[0].section}, {len(together)}")
def test_snippets_print_what_the_page_says(together: list[Snippet], tmp_path: Path) -> None:
    try:
        texts = run_recipes.printed(together, tmp_path)
    except NotInstalledError as missing:
        pytest.skip(str(missing))
    for snippet, text in zip(together, texts, strict=True):
        assert snippet.prints(text), f"{snippet.code}\nprints\n{text}\nand the page says\n{snippet.printed}"


def test_every_library_has_a_snippet() -> None:
    """And every block of the page is one, with its output; the table has a version of each library."""
    used = set().union(*(snippet.libraries for snippet in SNIPPETS))
    assert used == LIBRARIES | {"torch"}
    assert len(SNIPPETS) == TEXT.count("```python") == TEXT.count("```text")
    assert all(snippet.printed for snippet in SNIPPETS)
    assert set(run_recipes.versions_said(TEXT)) == {run_recipes.DISTRIBUTIONS.get(library, library) for library in used}


@pytest.mark.peer
def test_versions_of_the_table() -> None:
    """What is installed here in the page's version; others are skipped by name, and their snippets are run all the same."""
    said = run_recipes.versions_said(TEXT)
    here = run_recipes.versions(TEXT)
    if other := [f"{name} {number}, on the page {said[name]}" for name, number in here.items() if number != said[name]]:
        pytest.skip("; ".join(other))
    assert here.items() <= said.items()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.section)
def test_snippets_are_short(snippet: Snippet) -> None:
    """Under 20 lines of code, none of them long."""
    nodes = [node for node in ast.walk(ast.parse(snippet.code)) if isinstance(node, ast.expr | ast.stmt)]
    assert len({line for node in nodes for line in (node.lineno, node.end_lineno)}) < 20
    assert max(map(len, snippet.code.splitlines())) <= 120


def test_a_snippet_that_prints_something_else_is_found() -> None:
    """Power of the test above; and the page is corrected where it is wrong."""
    page = "## a\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n\n```python\nprint(3)\n```\n"
    wrong, silent = run_recipes.snippets(page)
    assert wrong.printed == "2\n"
    assert not wrong.prints("1\n")
    assert not silent.prints("3\n")
    for snippet, text in ((wrong, "1\n"), (silent, "3\n")):
        page = run_recipes.with_output(page, snippet, text)
    assert all(snippet.prints(text) for snippet, text in zip(run_recipes.snippets(page), ("1\n", "3\n"), strict=True))


def test_what_is_run_together(tmp_path: Path) -> None:
    page = "## a\n```python\nprint('one')\n```\n```python\n# torchrun --nproc-per-node 2 b.py\n```\n```python\nprint(2)\n```\n"
    alone, many = run_recipes.runs(page)
    assert [snippet.processes for snippet in (*alone, *many)] == [0, 0, 2]
    assert run_recipes.printed(alone, tmp_path) == ["one\n", "2\n"]
    missing = Snippet("a", "import there_is_no_such_library\n", "")
    with pytest.raises(NotInstalledError, match="there_is_no_such_library not installed"):
        run_recipes.printed([missing], tmp_path)
    with pytest.raises(RuntimeError, match=re.escape("1 / 0")):
        run_recipes.printed([Snippet("a", "1 / 0\n", "")], tmp_path)
