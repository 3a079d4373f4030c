"""The kernels cost as many instructions per value as benchmarks/instructions/counts.json says, for each instruction set.

Counts are those of one compiler: with another one they are not compared. Nothing is timed.
"""

from __future__ import annotations

import pytest
from core_builds import NEEDED, built, require

from benchmarks.instructions import Unavailable, compiler_of, count, deviations, recorded
from benchmarks.instructions.counting import ISAS, STORAGES, rows

BUILD = {"scalar": "native", "avx2": "native", "avx512": "native", "neon": "neon"}


@pytest.mark.parametrize("isa", ISAS)
def test_counts_are_the_recorded_ones(isa: str) -> None:
    require(*NEEDED[BUILD[isa]])
    folder, known = built(BUILD[isa]), recorded()[isa]
    if compiler_of(folder) != known.compiler:
        pytest.skip(f"counted with {known.compiler}, built with {compiler_of(folder)}")
    try:
        found = count(isa, folder)
    except Unavailable as error:
        pytest.skip(str(error))
    different = deviations(found.instructions, known.instructions)
    assert not different, "\n".join([*different, "If that is meant: python -m benchmarks.instructions --update"])


def test_every_kernel_is_recorded() -> None:
    known = recorded()
    assert set(known) == set(ISAS)
    for counted in known.values():
        assert set(counted.instructions) == set(rows())
        assert len(counted.instructions) == 4 * len(STORAGES)
        assert all(0 < instructions < 1000 for instructions in counted.instructions.values())


def test_deviations_are_seen() -> None:
    known = {"a": 5.0, "b": 10.0, "gone": 1.0}
    assert deviations({"a": 5.05, "b": 10.19, "gone": 1.0}, known) == []
    assert deviations({"a": 5.2, "b": 9.7, "new": 1.0}, known) == [
        "gone: counted in one of both only",
        "new: counted in one of both only",
        "a: 5.2 instructions per value, 5 are recorded",
        "b: 9.7 instructions per value, 10 are recorded",
    ]
