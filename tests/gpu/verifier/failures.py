"""Failed allocations: each on record with what was asked, and what the device had."""

from . import trace
from .exact import exact
from .sums import told


def failures(box, case):
    row = exact(box, case)
    out = (box.out / case.name / "traced.out").read_text()
    _, said = told(out)
    files = list((box.work / case.name).glob("*.vrt"))
    if len(files) != 1 or "failed" not in said:
        row.wrong("no trace, or the program did not say what failed")
        return row
    found = trace.events(files[0], trace.ALLOC_FAILED, trace.MEM_INFO)
    asked = [event.size for event in found if event.op == trace.ALLOC_FAILED]
    # What the device had follows each failure; it is on record for other moments, too.
    infos = [after for event, after in zip(found, found[1:]) if (event.op, after.op) == (trace.ALLOC_FAILED, trace.MEM_INFO)]
    row.notes.append(f"{len(asked)} failed requests on record")
    if len(said["failed"]) < 2:
        row.wrong(f"the device refused only {said['failed']}")
    if asked != said["failed"]:
        row.wrong(f"failed: truth {said['failed']}, ours {asked}")
    if len(infos) != len(asked):
        row.wrong(f"free and total memory recorded {len(infos)} times for {len(asked)} failures")
    for info in infos:
        if info.size != said["total"] or not 0 < info.aux <= info.size:
            row.wrong(f"memory at the failure: total {info.size:,} (truth {said['total']:,}), free {info.aux:,}")
    return row
