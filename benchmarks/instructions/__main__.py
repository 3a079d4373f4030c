"""``python -m benchmarks.instructions [--update]``: counts what can be counted here, compares with or writes counts.json."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .counting import COUNTS, ISAS, TOLERANCE, VALUES, Counted, Unavailable, count, deviations, recorded

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
CROSS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 if a count is not the recorded one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write what was counted to counts.json")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build", metavar="FOLDER", help="where native/ and neon/ are built"
    )
    options = parser.parse_args(arguments)
    known = recorded() if COUNTS.exists() else {}
    status = 0
    for isa in ISAS:
        try:
            found = count(isa, _built(isa, options.build))
        except (Unavailable, OSError, subprocess.CalledProcessError) as error:
            print(f"{isa}: skipped: {error}")
            continue
        status |= _report(isa, found, known.get(isa))
        if options.update:
            known[isa] = found
    if options.update:
        _write(known)
        return 0
    return status


def _report(isa: str, found: Counted, known: Counted | None) -> int:
    print(f"{isa}, {found.how}, {found.compiler}:")
    for name, instructions in found.instructions.items():
        print(f"  {name:<38} {instructions:8.3f}")
    if known is None or known.compiler != found.compiler:
        print(f"  not compared: {'nothing is recorded' if known is None else f'recorded with {known.compiler}'}")
        return 0
    different = deviations(found.instructions, known.instructions)
    for line in different:
        print(f"  {line}")
    return int(bool(different))


def _built(isa: str, build: Path) -> Path:
    """The folder of the program for the instruction set, built if need be."""
    if isa != "neon" and platform.machine() not in ("x86_64", "AMD64"):
        raise Unavailable("needs x86-64")
    folder = build / ("neon" if isa == "neon" else "native")
    switches = ["-DWEIGHTINIT_CORE_TESTS=ON", *(CROSS if isa == "neon" else ())]
    for command in (["-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *switches], ["--build", str(folder)]):
        subprocess.run(["cmake", *command], check=True, stdout=subprocess.DEVNULL)
    return folder


def _write(isas: dict[str, Counted]) -> None:
    head = {"what": "instructions per value, steady state", "values": VALUES, "tolerance": TOLERANCE}
    entries = {isa: entry._asdict() for isa, entry in isas.items()}
    COUNTS.write_text(json.dumps(head | {"isas": entries}, indent=1) + "\n", encoding="utf-8")
    print(f"written: {COUNTS.name}")


if __name__ == "__main__":
    sys.exit(main())
