"""A storm of stream-ordered allocations within the budget: what stacks cost, and that every counter is exact."""

import json

from .exact import compare, folder, traced_run
from .case import Row
from .sums import told

BUDGET = 0.5
"""Percent of one core."""


def after_first_second(process):
    """Percent of a core that stacks cost with the intervals that were in force later than a second after the start."""
    later = [one for one in process["sampling"]["intervals"] if one["last_ns"] > process["start_ns"] + 10**9]
    return sum(one["stack_ns"] for one in later) / max(1, sum(one["ns"] for one in later)) * 100


def storm(box, case):
    row = Row(case.name)
    ran, ours = traced_run(box, case, row)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    compare(row, told(ran.out)[0], ours)
    said = json.loads(next(line for line in ran.out.splitlines() if line.startswith('{"allocations"')))
    traces = sorted((box.work / case.name).glob("*.vrt"))
    read = box.run([box.reader, "summary", "--json", *traces], limit=60)
    (folder(box, case) / "summary.json").write_text(read.out)
    if read.code != 0 or len(traces) != 1:
        row.wrong(read.failure("vramtrace summary") or f"{len(traces)} traces")
        return row
    process = json.loads(read.out)["processes"][0]
    made = sum(account["allocated"]["count"] for account in process["accounts"] if account["layer"] == "framework")
    if made != said["allocations"]:
        row.wrong(f"allocations: truth {said['allocations']:,}, ours {made:,}")
    sampling, cost = process["sampling"], after_first_second(process)
    row.data = {"cost_percent": cost, "said": said, "sampling": sampling}
    row.notes.append(
        f"{said['allocations'] / said['seconds']:,.0f} allocations a second; stacks cost {cost:.2f} % of a core after the first"
        f" second (budget {BUDGET}), {sampling['stack_percent']:.2f} % altogether; {sampling['changes']} changes; the rest"
        f" {sampling['event_percent'] or 0:.2f} %, {sampling['event_ns']} ns an event"
    )
    if cost > BUDGET + 0.2:
        row.wrong(f"stacks cost {cost:.2f} % of a core, for a budget of {BUDGET}")
    return row
