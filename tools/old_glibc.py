"""Libraries to link with, so that what a new Linux builds runs on an old one: today's glibc under its old symbols' versions.

    python tools/old_glibc.py FOLDER [COMPILER]      makes libpthread.so.0, libdl.so.2 and librt.so.1 in FOLDER

glibc 2.34 moved the functions of these three libraries into libc.so.6 and gave them new versions, to which a linker binds. The
old ones are still there, for programs that were built before. What is made here offers nothing but those, and holds no code:
a module that is linked with it asks for the libraries by name, as one built on a system of ten years ago does, and finds
them on every system since. Used for wheels that are not built in a manylinux container (tools/build_wheels.py).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NEWEST = (2, 17)  # manylinux2014; and the first glibc that there is for aarch64
LIBRARIES = {
    "libpthread.so.0": re.compile(r"_*pthread_\w+|sem_\w+"),
    "libdl.so.2": re.compile(r"dl\w+"),
    "librt.so.1": re.compile(r"(aio|clock|mq|shm|timer)_\w+"),
}
_SYMBOL = re.compile(r"^[0-9a-f]+ +[gw] +.*DF? .*? (\(?)GLIBC_([\d.]+)\)? +(\w+)$")


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def moved(table: str) -> dict[str, str]:
    """Functions whose default version is too new and that have an older one, with the latest such: from ``objdump -T``.

    >>> line = "0000000000001000 g    DF .text  0000000000000010"
    >>> moved(f"{line}  GLIBC_2.34  dlopen\\n{line} (GLIBC_2.2.5) dlopen\\n{line}  GLIBC_2.2.5 memcpy\\n")
    {'dlopen': '2.2.5'}
    """
    default: dict[str, str] = {}
    older: dict[str, list[str]] = defaultdict(list)
    for hidden, number, name in (match.groups() for line in table.splitlines() if (match := _SYMBOL.match(line))):
        if hidden:
            older[name].append(number)
        else:
            default[name] = number
    usable = {name: [n for n in older[name] if version(n) <= NEWEST] for name in default if version(default[name]) > NEWEST}
    return {name: max(numbers, key=version) for name, numbers in sorted(usable.items()) if numbers}


def make(folder: Path, library: str, symbols: dict[str, str], compiler: str) -> None:
    by_version: dict[str, list[str]] = defaultdict(list)
    for name, number in symbols.items():
        by_version[number].append(name)
    source, script = folder / f"{library}.c", folder / f"{library}.map"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in symbols))
    script.write_text("".join(f"GLIBC_{number} {{ global: {'; '.join(names)}; }};\n" for number, names in by_version.items()))
    flags = ["-shared", "-nostdlib", "-fno-builtin", "-w", f"-Wl,-soname,{library}", f"-Wl,--version-script,{script}"]
    subprocess.run([compiler, "-x", "c", *flags, str(source), "-o", str(folder / library)], check=True)


def main(folder: Path, compiler: str = "gcc") -> None:
    libc = subprocess.check_output([compiler, "-print-file-name=libc.so.6"], text=True).strip()
    objdump = subprocess.check_output([compiler, "-print-prog-name=objdump"], text=True).strip()
    symbols = moved(subprocess.check_output([objdump, "-T", libc], text=True))
    folder.mkdir(parents=True, exist_ok=True)
    for library, names in LIBRARIES.items():
        make(folder, library, {name: number for name, number in symbols.items() if names.fullmatch(name)}, compiler)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
