"""NVTX ranges: bytes and number of what a program left in each, by its own count and by ours."""

import json

from .case import SKIPPED, Row
from .exact import folder, read_leaks, traced_run
from .frameworks import lacks
from .sums import told


def ranges(box, case):
    row = Row(case.name)
    if problem := lacks(box, "torch"):
        row.verdict = SKIPPED
        row.notes.append(problem)
        return row
    ran, ours = traced_run(box, case, row)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    said = told(ran.out)[1]
    if said.get("pid") not in ours:
        row.wrong(f"no answer from the script, or no trace of it (traces: {sorted(ours)})")
        return row
    trace = box.work / case.name / f"{said['pid']}.vrt"
    document = read_leaks(box, trace, folder(box, case), "--by", "range")
    if isinstance(document, str):
        row.wrong(document)
        return row
    groups = {group["value"]: group for group in document["groups"] if group["value"] != "no range"}
    found = {name: [group["bytes"], group["count"]] for name, group in groups.items()}
    entered = {name: group["entered"] for name, group in groups.items()}
    row.truth = f"{sum(held[0] for held in said['ranges'].values()):,} B in {len(said['ranges'])} ranges"
    row.ours = f"{sum(held[0] for held in found.values()):,} B in {len(found)} ranges"
    if found != said["ranges"]:
        row.wrong(f"ranges: truth {said['ranges']}, ours {found}")
    if entered != said["entered"]:
        row.wrong(f"entered: truth {said['entered']}, ours {entered}")
    read = box.run([box.reader, "timeline", "--json", trace], limit=60)
    (folder(box, case) / "timeline.json").write_text(read.out)
    marks = [mark["text"] for mark in json.loads(read.out)["marks"]] if read.code == 0 else []
    if marks != [f"end of step {step}" for step in range(said["marks"])]:
        row.wrong(f"marks: {marks}")
    return row
