"""Live memory as sums by (kind, end), from what programs say and from what the reader says."""

import json
import re
from dataclasses import dataclass, field

LEFT = re.compile(r"^left (\w+) (\w+) (\d+) (\d+)\b")


@dataclass
class Process:
    """One process's live memory."""

    pid: int = 0
    sums: dict = field(default_factory=dict)
    """(kind, end) -> [bytes, count]; a count of None is not known."""
    imports: int = 0
    only: list | None = None
    """Kinds that the program knows about; None for all."""
    complaints: list = field(default_factory=list)
    cached: int = 0

    def add(self, kind, end, size, count):
        entry = self.sums.setdefault((kind, end), [0, 0])
        entry[0] += size
        entry[1] = None if count is None or entry[1] is None else entry[1] + count

    def total(self, kinds=None):
        """(bytes, count) of some kinds, or of all."""
        chosen = [value for (kind, _), value in self.sums.items() if kinds is None or kind in kinds]
        counts = [count for _, count in chosen]
        return sum(size for size, _ in chosen), None if None in counts else sum(counts)


def told(output):
    """What a program's processes said of themselves: their truths, and other JSON lines."""
    processes, other, left = [], {}, None
    for line in output.splitlines():
        if match := LEFT.match(line):
            left = left or Process()
            left.add(match[1], "live", int(match[3]), int(match[4]))
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "live" not in said:
            other |= said
            continue
        process = Process(said.get("pid", 0), imports=said.get("imports", 0), only=said.get("only"))
        for entry in said["live"]:
            process.add(entry["kind"], entry.get("end", "live"), entry["bytes"], entry["count"])
        processes.append(process)
    return processes or ([left] if left else []), other


def said_otherwise(output):
    """A program's output without what differs from run to run."""
    return re.sub(r'"pid": ?\d+', '"pid":0', output)


def recorded(document):
    """One process's live memory, from `vramtrace leaks --json` of one trace."""
    process = Process(document["processes"][0]["pid"])
    for group in document["groups"]:
        # What teardown released was live when the program said what is.
        end = "live" if group["end"] == "teardown" else group["end"]
        process.add(group["kind"], end, group["bytes"], group["count"])
    process.imports = document["total"]["imports"]["count"]
    process.cached = document["total"]["cached"]["bytes"]
    if not document["complete"]:
        process.complaints.append("not complete: " + "; ".join(document["incomplete_because"]))
    if document["lost_events"]:
        process.complaints.append(f"{document['lost_events']} events lost")
    return process


def differences(truth, ours):
    """Where the two disagree, as sentences."""
    kinds = truth.only

    def of(process):
        return {key: tuple(value) for key, value in process.sums.items() if kinds is None or key[0] in kinds}

    expected, found = of(truth), of(ours)
    for key in sorted(expected.keys() | found.keys()):
        wanted, got = expected.get(key, (0, 0)), found.get(key, (0, 0))
        if wanted[0] != got[0] or (wanted[1] is not None and wanted[1] != got[1]):
            yield f"{key[0]} {key[1]}: truth {shown(wanted)}, ours {shown(got)}"
    if truth.imports != ours.imports:
        yield f"imports: truth {truth.imports}, ours {ours.imports}"


def shown(pair):
    """`3, 1,234 B`."""
    size, count = pair
    return f"{'?' if count is None else count}, {size:,} B"


def shown_all(processes, kinds=None):
    """The sum over processes."""
    totals = [process.total(kinds if kinds is not None else process.only) for process in processes]
    counts = [count for _, count in totals]
    return shown((sum(size for size, _ in totals), None if None in counts else sum(counts)))
