"""The batteries' program: its words are the library's, its tests are fair, its controls are seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import weightinit_cuda as wi
from benchmarks.batteries import __main__ as program
from benchmarks.batteries.sources import SEED, SOURCES
from benchmarks.batteries.values import VALUE_TESTS
from benchmarks.batteries.words import TESTS, smallest
from benchmarks.quality.findings import ALARM
from benchmarks.quality.philox import philox

WORDS = 1 << 18


def test_words_are_the_librarys() -> None:
    made = philox(np.arange(2**32 - 2, 2**32 + 2), 2**40 + 3, 2**63 + 5)
    assert made.reshape(-1).tolist() == wi.bits(2**63 + 5, stream=2**40 + 3, n=16, start=4 * (2**32 - 2)).tolist()
    assert SEED < 2**32


@pytest.mark.parametrize("name", sorted(TESTS))
def test_numpys_words_are_not_seen(name: str) -> None:
    words = np.random.default_rng(7).integers(0, 2**32, WORDS, dtype=np.uint32)
    assert TESTS[name](words) > 1e-4


@pytest.mark.parametrize("name", sorted(TESTS))
def test_each_test_sees_something(name: str) -> None:
    bad = np.random.default_rng(7).integers(0, 2**32, WORDS, dtype=np.uint32)
    bad[1::2] = bad[::2] & np.uint32(0xFFFFFFFE)
    bad[::2] &= np.uint32(0x0FFFFFFF)
    assert TESTS[name](bad) < ALARM


@pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])
def test_sources_are_what_they_say(source: object) -> None:
    name, words, seen_by = source  # type: ignore[misc]
    drawn = words(1 << 20)
    assert (drawn.dtype, drawn.size) == (np.uint32, 1 << 20), name
    if seen_by:
        assert TESTS[seen_by](drawn) < ALARM
    else:
        assert TESTS["frequencies"](drawn) > ALARM


def test_smallest_of_many() -> None:
    assert smallest([0.5]) == pytest.approx(0.5)
    assert smallest([1e-3, 0.5]) == pytest.approx(1 - (1 - 1e-3) ** 2)
    assert smallest([0.0]) == pytest.approx(0.0)
    assert smallest([1.0]) == pytest.approx(1.0)


def test_results_are_committed() -> None:
    found = json.loads((Path(program.__file__).parent.parent / "results" / "batteries.json").read_text())
    assert [row["source"] for row in found["rows"]] == [one.name for one in (*SOURCES, *VALUE_TESTS)]
    assert all(row["right"] for row in found["rows"])
    assert found["format"] == wi.FORMAT


def test_sizes_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--words", "1000"])
    assert "--words must be a power of two, at least 2^20, got 1000" in capsys.readouterr().err
