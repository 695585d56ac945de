"""The driver's behaviour, observed: the same with us as without, and saved for comparison with the
simulated driver's."""

import difflib

from .case import SKIPPED, Row
from .exact import command


def conformance(box, case):
    row = Row(case.name)
    (box.work / case.name).mkdir(exist_ok=True)
    bare = box.run(command(box, case), case.limit)
    (box.out / "conformance-gpu.txt").write_text(bare.out)
    (box.out / "conformance-gpu.err").write_text(bare.err)
    if problem := bare.failure("without us it"):
        row.notes.append(problem)
    traced = box.run(command(box, case), case.limit, traced=box.work / case.name / "%p.vrt")
    (box.out / "conformance-gpu-traced.txt").write_text(traced.out)
    lines = bare.out.splitlines()
    row.truth = f"{len(lines)} observations"
    if not lines:
        row.wrong("it prints nothing")
    if traced.code != bare.code:
        row.wrong(f"it ends with {traced.code} under us, with {bare.code} without")
    changed = [
        line
        for line in difflib.unified_diff(lines, traced.out.splitlines(), "bare", "traced", lineterm="", n=0)
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    row.ours = "the same" if not changed else f"{len(changed)} lines differ"
    if changed:
        row.wrong("; ".join(changed[:6]))
    if changed and box.run(command(box, case), case.limit).out != bare.out:
        row.notes.append("two bare runs differ too")
    return row


def conformance_if_there(box, case):
    if not (box.work / "built" / case.program).exists():
        return Row(case.name, verdict=SKIPPED, notes=["no conformance.c"])
    return conformance(box, case)
