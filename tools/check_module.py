"""Whether the installed native module gives the known words and values, without torch: for wheels, after they are built.

python tools/check_module.py            of the installed package
python tools/check_module.py FOLDER     of the package in that folder
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BITS, NORMAL = 0, 4  # kinds of csrc/job.h
FLOAT32, UINT32 = 0, 8  # and storages
WORDS = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # Philox4x32-10 of zeros: Random123's kat_vectors
NORMALS = 100_003  # elements: more than a tile, and an odd end


def module(folder: str | None) -> ModuleType:
    """The package itself is not imported, since it needs torch."""
    found = importlib.util.find_spec("weightinit_cuda") if folder is None else None
    place = Path(folder or "") / "weightinit_cuda" if found is None else Path(str(found.origin)).parent
    (path,) = place.glob("_C*.so")
    spec = importlib.util.spec_from_file_location("_C", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def values(kernels: ModuleType, isa: str) -> tuple[list[int], bytes]:
    """The first words of stream 0 under seed 0, and some normal values, from the kernels of one instruction set."""
    kernels.select_isa(isa)
    words, normals = (ctypes.c_uint32 * 4)(), (ctypes.c_float * NORMALS)()
    kernels.fill([(ctypes.addressof(words), UINT32, kernels.Transform(BITS, [], []), 0, 0, 0, [(4, 1, 1)])], 1)
    normal = kernels.Transform(NORMAL, [0.0, 1.0], [])
    kernels.fill_contiguous(ctypes.addressof(normals), FLOAT32, NORMALS, normal, 1, 2, 2)
    return list(words), bytes(normals)


def main(folder: str | None = None) -> int:
    kernels = module(folder)
    made = {isa: values(kernels, isa) for isa in kernels.available_isas()}
    wrong = [isa for isa, (words, normals) in made.items() if words != WORDS or normals != made["scalar"][1]]
    print(f"check_module: {kernels.version}, {', '.join(made)}; CUDA: {kernels.cuda_architectures or 'none'}")
    for isa in wrong:
        print(f"check_module: {isa}: wrong values", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
