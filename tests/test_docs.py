"""The examples in README.md and docs/ run and print what they say; numbers are those of `tools/`."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_readme_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, as a reader would type them."""
    monkeypatch.chdir(tmp_path)  # they save a plan
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.parametrize(
    "page", [f"docs/{page}.md" for page in ("design", "plans", "deferred", "sharding", "checkpoints", "probe")]
)
def test_pages(page: str) -> None:
    result = doctest.testfile(str(ROOT / page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.md") if ".venv" not in path.parts)
)
def test_links(page: str) -> None:
    """Relative links lead to files."""
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"
