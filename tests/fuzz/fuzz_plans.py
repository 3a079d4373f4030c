"""Longer fuzzing of plans, by coverage: needs atheris (see below), is no test, and is not run by default.

    pip install -e .[fuzz]
    python tests/fuzz/fuzz_plans.py build/corpus tests/fuzz/corpus -max_total_time=600

Inputs are bytes: of a plan with some places changed, which atheris chooses, or any bytes at all. What a run finds goes into
``tests/fuzz/corpus``, under a name that begins with what becomes of it; ``tests/plans/test_hostile_plans.py`` tries those.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]
with atheris.instrument_imports(include=["weightinit_cuda.plans", "weightinit_cuda.tensors.boxes", "json"]):
    import hostile

BASE = hostile.as_json(hostile.SOUND)
ACTIONS = ("replace", "delete", "twice")
outcomes: Counter[str] = Counter()


def one(data: bytes) -> None:
    """A text that begins with { is taken as it is; other bytes say which places are changed, and to what."""
    if data[:1] == b"{":
        outcomes[hostile.outcome(data)] += 1
        return
    chosen = atheris.FuzzedDataProvider(data)
    plan = BASE
    for _ in range(chosen.ConsumeIntInRange(1, 4)):
        places = hostile.places(plan)
        place = places[chosen.ConsumeIntInRange(0, len(places) - 1)]
        value = hostile.VALUES[chosen.ConsumeIntInRange(0, len(hostile.VALUES) - 1)]
        plan = hostile.changed(plan, place, ACTIONS[chosen.ConsumeIntInRange(0, 2)], value)
    outcomes[hostile.outcome(json.dumps(plan))] += 1


def main() -> None:
    atheris.Setup(sys.argv, one)
    try:
        atheris.Fuzz()
    finally:
        print(dict(outcomes), file=sys.stderr)


if __name__ == "__main__":
    main()
