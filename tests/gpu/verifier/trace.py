"""Just enough of the trace format to look into the rings without our own reader.

The layout is format/src/layout.rs and format/src/record.rs: a header of one page with a section
table, then sections; rings are arrays of records of 64 bytes.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"VRAMTRC\x1a"
CONTROL, RING_DEVICE, RING_FRAMEWORK = 1, 11, 12
ALLOC_FAILED, MEM_INFO = 16, 19
RECORD = struct.Struct("<5Q4I2H4B")
HEADER = struct.Struct("<8s2I3Q2I2Q")
SECTION = struct.Struct("<2I2Q")


@dataclass(frozen=True)
class Event:
    seq: int
    size: int
    aux: int
    op: int
    kind: int


def sections(data):
    """Kind -> bytes of the section."""
    if data[:8] != MAGIC:
        raise ValueError("not a trace")
    count = HEADER.unpack_from(data)[7]
    table = [SECTION.unpack_from(data, HEADER.size + i * SECTION.size) for i in range(count)]
    return {kind: data[offset : offset + length] for kind, _, offset, length in table}


def overwritten(file):
    """Events that the rings forgot."""
    parts = sections(Path(file).read_bytes())
    written = struct.unpack_from("<2Q", parts[CONTROL])
    rooms = [len(parts[ring]) // RECORD.size for ring in (RING_DEVICE, RING_FRAMEWORK)]
    return sum(max(0, count - room) for count, room in zip(written, rooms))


def events(file, *wanted):
    """Events of some operations that are still in the rings, in order."""
    parts = sections(Path(file).read_bytes())
    found = []
    for ring in (parts[RING_DEVICE], parts[RING_FRAMEWORK]):
        for words in RECORD.iter_unpack(ring):
            seq, _time, _key, size, aux = words[:5]
            op, _space, kind = words[11:14]
            if seq and op in wanted:
                found.append(Event(seq, size, aux, op, kind))
    return sorted(found, key=lambda event: event.seq)
