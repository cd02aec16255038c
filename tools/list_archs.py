"""Lists the CUDA architectures that a library holds code for, without CUDA's own tools.

python tools/list_archs.py LIBRARY
elf 80 90
ptx 100
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
KINDS = {1: "ptx", 2: "elf"}


def architectures(library: bytes) -> dict[str, list[int]]:
    """Return the architectures of the machine code (`elf`) and of the portable code (`ptx`) in a library.

    A fat binary starts with a header (u32 magic, u16 version, u16 header size, u64 payload size); entries
    follow, each with u16 kind at 0, u32 header size at 4, u64 payload size at 8 and u32 architecture at 28.
    """
    found: dict[str, set[int]] = {kind: set() for kind in KINDS.values()}
    start = library.find(MAGIC)
    while 0 <= start <= len(library) - 16:
        header, size = struct.unpack_from("<HQ", library, start + 6)
        at = start + header
        end = min(at + size, len(library) - 32)  # the magic number may also occur by chance
        while at < end:
            kind, entry_header, payload, arch = struct.unpack_from("<H2xIQ12xI", library, at)
            if kind not in KINDS or entry_header == 0:
                break
            found[KINDS[kind]].add(arch)
            at += entry_header + payload
        start = library.find(MAGIC, start + 4)
    return {kind: sorted(archs) for kind, archs in found.items()}


if __name__ == "__main__":
    for kind, archs in architectures(Path(sys.argv[1]).read_bytes()).items():
        if archs:
            print(kind, *archs)
