"""NVTX ranges: bytes and number of what a program left in each, by its own count and by ours, and
when its steps were."""

import json

from .case import Row
from .exact import folder, read_leaks, traced_run
from .frameworks import needs
from .sums import told

# What the program's clock and ours may be apart, nanoseconds.
APART = 1_000_000


@needs("torch")
def ranges(box, case):
    row = Row(case.name)
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
    read = box.run([box.reader, "export", "--format", "json", "--table", "events", "-o", "-", trace], limit=60)
    events = [json.loads(line) for line in read.out.splitlines()]
    ended = [event for event in events if event["op"] == "range-ended"]
    if any("nothing" in event["range"] for event in ended):
        row.wrong("a range in which nothing is allocated ends in the trace")
    steps = [(event["aux"], event["time_ns"]) for event in ended if event["range"] == "step"]
    if len(steps) != len(said["steps"]):
        row.wrong(f"{len(steps)} steps, truth {len(said['steps'])}")
    for (began, ends), (entered, by, last, ended_by) in zip(steps, said["steps"]):
        if not (entered - APART <= began <= by + APART and last - APART <= ends <= ended_by + APART):
            row.wrong(f"a step from {began} to {ends}, truth {entered} {by} {last} {ended_by}")
    took = sum(ends - began for began, ends in steps)
    row.notes.append(f"{len(steps)} steps, {took / 1e6:.1f} ms in all, where they were to {APART / 1e6:.0f} ms; {len(ended)} ranges ended")
    return row
