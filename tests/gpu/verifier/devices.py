"""Several devices: what each holds, by the program and by us; ranks, each with its own number of nvidia-smi."""

import json

from .case import SKIPPED, Row
from .exact import SKIP, command, environment, folder, read_leaks, traced_run
from .frameworks import lacks, needs
from .reconcile import MIB, SHARE, SMALL
from .sums import told

ONE_DEVICE = "there is one device"


def no_second_device(ran):
    return ran.code == SKIP or ONE_DEVICE in ran.err


def devices(box, case):
    """Bytes and number of each kind on each device."""
    row = Row(case.name)
    if case.program.startswith("python/") and (problem := lacks(box, "torch")):
        row.verdict = SKIPPED
        row.notes.append(problem)
        return row
    ran, ours = traced_run(box, case, row)
    if no_second_device(ran):
        return Row(case.name, verdict=SKIPPED, notes=[ONE_DEVICE])
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    said = told(ran.out)[1]
    if said.get("pid") not in ours:
        row.wrong(f"no answer from the program, or no trace of it (traces: {sorted(ours)})")
        return row
    for complaint in ours[said["pid"]].complaints:
        row.wrong(complaint)
    trace = box.work / case.name / f"{said['pid']}.vrt"
    document = read_leaks(box, trace, folder(box, case))
    uuids = {device["index"]: device["uuid"] for device in document["devices"]}
    if [uuids.get(index) for index in (0, 1)] != said["uuids"]:
        row.wrong(f"devices: truth {said['uuids']}, ours {uuids}")
    index_of = {device["id"]: str(device["index"]) for device in document["devices"]}
    found = {"0": {}, "1": {}, "host": {}}
    for group in document["groups"]:
        if group["end"] == "context":
            row.notes.append(f"ended with its context, device {index_of[group['device']]}: {group['bytes']:,} B")
            continue
        place = "host" if group["layer"] == "host" else index_of[group["device"]]
        held = found[place].setdefault(group["kind"], [0, 0])
        held[0] += group["bytes"]
        held[1] += group["count"]
    truth = said["of_device"] | ({"host": said["host"]} if "host" in said else {})
    shown = lambda of: "; ".join(f"{place}: {sum(held[0] for held in kinds.values()):,} B" for place, kinds in of.items() if kinds)
    row.truth = shown(truth)
    row.ours = shown({place: {kind: held for kind, held in kinds.items() if kind in truth.get(place, {})} for place, kinds in found.items()})
    for place, kinds in truth.items():
        for kind, held in kinds.items():
            if found[place].get(kind) != held:
                row.wrong(f"{kind} on {place}: truth {held}, ours {found[place].get(kind)}")
    if "reserved" in said:
        reserved = [of["reserved"] for of in sorted(document["torch"], key=lambda of: index_of[of["device"]])]
        if reserved != said["reserved"]:
            row.wrong(f"reserved: truth {said['reserved']}, ours {reserved}")
    elif extra := {place: kinds.keys() - truth.get(place, {}).keys() for place, kinds in found.items() if kinds.keys() - truth.get(place, {}).keys()}:
        row.wrong(f"kinds that the program did not make: {extra}")
    return row


@needs("torch")
def ranks(box, case):
    """Each rank's number of nvidia-smi explained, and the rank that leaks told apart from the other one."""
    row = Row(case.name)
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    ran = box.run([box.reader, "run", "-o", traces / "%p.vrt", "--", *command(box, case)], case.limit, environment(case))
    (place / "run.out").write_text(ran.out + ran.err)
    if no_second_device(ran):
        return Row(case.name, verdict=SKIPPED, notes=[ONE_DEVICE])
    if problem := ran.failure("under us the ranks"):
        row.wrong(problem)
        return row
    said = sorted((json.loads(line) for line in ran.out.splitlines() if line.startswith("{")), key=lambda one: one["rank"])
    row.truth = "; ".join(f"rank {one['rank']}: {one['shown'][one['rank']]:,} B" for one in said)
    files = [traces / f"{one['pid']}.vrt" for one in said]
    numbers = []
    for one, file in zip(said, files):
        answer = box.run([box.reader, "reconcile", "--json", "--to", "mark:reconcile", file], 60)
        (place / f"reconcile-{one['rank']}.json").write_text(answer.out + answer.err)
        if problem := answer.failure("vramtrace reconcile"):
            row.wrong(problem)
            continue
        document = json.loads(answer.out)
        for tree in document["trees"]:
            explain(row, one, document["devices"][tree["device"]]["index"], tree, numbers)
    row.ours = "; ".join(numbers)
    apart(box, case, files, row)
    return row


def explain(row, said, device, tree, numbers):
    """One device of one rank."""
    number = (tree["shown"] or {}).get("process_bytes")
    lines = ", ".join(f"{line.get('name') or line['part']} {line['bytes'] / MIB:,.1f}" for line in sorted(tree["lines"], key=lambda line: -line["bytes"]))
    row.notes.append(f"rank {said['rank']}, device {device}, MiB: {lines}")
    row.notes.extend(tree["notes"])
    if number != said["shown"][device]:
        row.wrong(f"rank {said['rank']}, device {device}: NVML said {said['shown'][device]} to the program, and {number} to us")
    if number is None:
        return
    left = number - tree["explained"]
    numbers.append(f"rank {said['rank']} on {device}: {number:,} B")
    row.notes.append(f"unexplained {left / MIB:,.1f} MiB, {left / number:.2%} of {number / MIB:,.1f}")
    if abs(left) > max(SMALL, SHARE * number):
        row.wrong("too much is not explained")


def apart(box, case, files, row):
    """The rank that differs is the one that keeps a tensor of each step, in the line that does."""
    answer = box.run([box.reader, "leaks", "--json", "--to", "mark:reconcile", *files], 60)
    (folder(box, case) / "leaks-both.json").write_text(answer.out + answer.err)
    if answer.code != 0:
        row.wrong(answer.failure("vramtrace leaks"))
        return
    document = json.loads(answer.out)
    row.data["ranks"] = document.get("ranks")
    rank_of = {process["id"]: process["rank"] for process in document["processes"]}
    if sorted(rank_of.values()) != [0, 1]:
        row.wrong(f"ranks: {rank_of}")
    kept = [
        (rank_of[group["process"]], group["ranges"])
        for group in document["groups"]
        if group["count"] >= 30 and group["bytes"] == 30 << 20 and any("torch_ranks.py" in (frame["file"] or "") for frame in group["stack"])
    ]
    # NCCL's ranges are over by then.
    if kept != [(1, [])]:
        row.wrong(f"30 tensors of 1 MiB are kept by rank 1, in no range; found at ranks and in ranges {kept}")
