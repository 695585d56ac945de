"""PyTorch's tensors: the very blocks of its own snapshot, with its own Python frames; and planted leaks."""

import json

from .case import Row
from .exact import command, environment, folder, read_leaks
from .frameworks import needs
from .box import HERE
from .sums import shown, told

FRAMES = 0.999
"""Share of the blocks whose Python frames must be PyTorch's own."""
SHOWN = 3
"""Differences that are written out."""


@needs("torch")
def moment(box, case):
    """At one moment of a run: our live set and PyTorch's."""
    row = Row(case.name)
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    env = environment(case) | {"VERIFY_READER": str(box.reader), "VERIFY_TRACES": str(traces)}
    ran = box.run(command(box, case), case.limit, env, traced=traces / "%p.vrt")
    (place / "traced.out").write_text(ran.out)
    (place / "traced.err").write_text(ran.err)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    said = told(ran.out)[1].get("moment")
    if not said:
        row.wrong("the program did not come to its moment (traced.out)")
        return row
    if problem := said["ours"].get("problem"):
        row.wrong(problem)
        return row
    document, truth = said["ours"], said["truth"]
    row.notes.append(f"torch {said['torch']}, {document['processes'][0]['duration_ns'] / 1e9:.1f} s traced when it stood still")
    for reason in document["incomplete_because"]:
        row.wrong(f"not complete: {reason}")
    compare = native if said["native"] else stream_ordered
    compare(document, truth, row)
    return row


def native(document, truth, row):
    """Every block, by device, address and size; frames; totals of three kinds."""
    theirs = {(device, address, size): frames for device, address, size, frames in truth["blocks"]}
    ours = members(document, "torch")
    row.truth = shown((sum(size for _, _, size in theirs), len(theirs)))
    row.ours = shown((sum(size for _, _, size in ours), len(ours)))
    if not theirs:
        row.wrong("PyTorch's snapshot has no blocks")
    for what, blocks in (("only PyTorch's", theirs.keys() - ours.keys()), ("only ours", ours.keys() - theirs.keys())):
        if blocks:
            some = ", ".join(f"GPU {device} {address:#x} {size:,} B" for device, address, size in sorted(blocks)[:SHOWN])
            row.wrong(f"{len(blocks)} blocks are {what}: {some}")
    frames(theirs, ours, row)
    says = document["torch"]
    row.notes.append(f"PyTorch's own number with its last event: {says}")
    allocated = sum(one["allocated"] for one in says)
    if allocated != truth["allocated"] or any(one["differs"] or one["seen"] is None for one in says):
        row.wrong(f"memory_allocated() is {truth['allocated']:,} B, by our cross-check {says}")
    caches = {"reserved": 0, "used": 0}
    for cache in document["caches"]:
        caches = {name: caches[name] + cache[name] for name in caches}
    if caches["reserved"] != truth["reserved"] or caches["used"] != truth["allocated"]:
        row.wrong(f"memory_reserved() is {truth['reserved']:,} B, memory_allocated() {truth['allocated']:,} B; ours {caches}")


def frames(theirs, ours, row):
    """Whether blocks have the frames that PyTorch recorded: file, line, function, all of them."""
    both = theirs.keys() & ours.keys()
    same, some, empty = 0, [], 0
    for block in both:
        wanted, found = theirs[block], ours[block]
        empty += not wanted
        equal = len(wanted) == len(found) and all(map(same_frame, wanted, found))
        same += equal
        if not equal and len(some) < SHOWN:
            at = next((at for at, pair in enumerate(zip(wanted, found)) if not same_frame(*pair)), min(len(wanted), len(found)))
            some.append(
                f"block {block[1]:#x}: frame {at} of {len(wanted)} (ours {len(found)}): "
                f"PyTorch {wanted[at : at + 2]}, ours {found[at : at + 2]}"
            )
    row.data["frames"] = {"blocks": len(both), "same": same, "without": empty}
    row.notes.append(f"{same} of {len(both)} blocks have PyTorch's own Python frames ({empty} of them have none)")
    if both and same < FRAMES * len(both):
        row.wrong("too few blocks have PyTorch's own Python frames")
    row.notes.extend(some)


def same_frame(wanted, found):
    """PyTorch names functions without their class."""
    name, file, line = wanted
    own, own_file, own_line = found
    return (file, line) == (own_file, own_line) and (own == name or own.rpartition(".")[2] == name.rpartition(".")[2])


def members(document, kind):
    """(device, address, bytes) -> Python frames, of every live block of a kind."""
    indices = {device["id"]: device["index"] for device in document["devices"]}
    found = {}
    for group in document["groups"]:
        if group["kind"] != kind:
            continue
        python = [[f["function"], f["file"], f["line"]] for f in group["stack"] if f["language"] == "python"]
        for member in group["members"]:
            found[indices[group["device"]], member["key"], member["bytes"]] = python
    return found


def stream_ordered(document, truth, row):
    """The driver's blocks are the tensors: their sum is PyTorch's, and every storage is one of them."""
    ours = members(document, "async")
    total = sum(size for _, _, size in ours)
    row.truth, row.ours = shown((truth["allocated"], None)), shown((total, len(ours)))
    if total != truth["allocated"]:
        row.wrong(f"memory_allocated() is {truth['allocated']:,} B, our blocks {total:,} B")
    addresses = {address: size for _, address, size in ours}
    missing = [(address, size) for address, size in truth["storages"] if addresses.get(address, 0) < size]
    row.notes.append(f"{len(truth['storages'])} storages, as the garbage collector has them")
    if missing:
        row.wrong(f"{len(missing)} storages are in no block of ours: {missing[:SHOWN]}")


@needs("torch")
def planted(box, case):
    """After a script's ordinary end, the line that leaks comes first and is called growing."""
    row = Row(case.name)
    source = (HERE / "cases" / case.program).read_text().splitlines()
    guilty = {number for number, line in enumerate(source, 1) if line.endswith(f"# guilty: {case.arguments[0]}")}
    traces = box.work / case.name
    traces.mkdir(exist_ok=True)
    ran = box.run(command(box, case), case.limit, environment(case), traced=traces / "%p.vrt")
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    files = sorted(traces.glob("*.vrt"))
    if len(files) != 1:
        row.wrong(f"{len(files)} traces, not one")
        return row
    # As a person would ask.
    document = read_leaks(box, files[0], folder(box, case), everything=False)
    if isinstance(document, str):
        row.wrong(document)
        return row
    if document["point"] != "teardown" or not document["complete"]:
        row.wrong(f"as of {document['point']}, because {document['incomplete_because']}")
    name = case.program.rpartition("/")[2]
    first = document["groups"][0] if document["groups"] else None
    if not first:
        row.wrong("nothing leaked")
        return row
    own = [f["line"] for f in first["stack"] if (f["file"] or "").endswith(name)]
    row.truth, row.ours = f"line {sorted(guilty)}", f"line {own[:1]}"
    row.notes.append(f"first: {first['count']} × {first['kind']}, {first['bytes']:,} B, lines of the script {own}, {first['suspicion']}")
    if not own or own[0] not in guilty:
        row.wrong("the first group is not the planted leak")
    if first["suspicion"] != "high":
        row.wrong(f"its suspicion is {first['suspicion']}")
    return row
