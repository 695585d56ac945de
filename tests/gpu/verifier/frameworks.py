"""PyTorch, JAX and CuPy: their allocators' own numbers against what the driver layer shows, and the script's lines."""

import functools
import json

from .case import SKIPPED, Row
from .exact import command, environment, exact, folder, traced_run
from .sums import shown, told

MIB = 1 << 20
OUTSIDE = 512 * MIB
"""Most that libraries (cuBLAS, XLA) may take beside a framework's own allocator."""


def torch(box, case):
    """Segments by what PyTorch reserved, blocks by what it handed out."""
    row, said, ours = framework_run(box, case, "torch", "torch")
    if not said:
        return row
    lines_of_the_script(case, said["groups"], row)
    blocks = ours.total(["torch"])
    held = blocks[0] + ours.cached
    row.ours = shown((held, blocks[1]))
    row.truth = shown((said["reserved"], said["blocks"]))
    if blocks != (said["allocated"], said["blocks"]):
        row.wrong(f"blocks: truth {shown((said['allocated'], said['blocks']))}, ours {shown(blocks)}")
    outside = ours.total(["device", "vmm", "managed"])
    if held != said["reserved"]:
        row.wrong(f"reserved: truth {said['reserved']:,} B, ours {held:,} B")
    if outside[1]:
        row.notes.append(f"outside the caching allocator: {shown(outside)}")
    if outside[0] > OUTSIDE:
        row.wrong("too much outside the caching allocator")
    return row


def jax(box, case):
    """XLA's pool must be in what we saw; what is beyond it, and the card's growth, must be explained."""
    row, said, ours = framework_run(box, case, "jax", "jax")
    if not said:
        return row
    lines_of_the_script(case, said["groups"], row)
    device = ours.total(["device", "vmm", "managed"])
    pool = said["pool"] or said["in_use"] or said["arrays"]
    row.truth, row.ours = shown((pool, None)), shown(device)
    row.notes.append(f"arrays {said['arrays']:,} B, in use {said['in_use'] or 0:,} B, beside the pool {device[0] - pool:,} B")
    if not pool:
        row.wrong("JAX did not say what it holds")
    if not pool <= device[0] <= pool + OUTSIDE:
        row.wrong(f"the pool holds {pool:,} B, ours {device[0]:,} B")
    if said["grown"] is not None:
        rest = said["grown"] - device[0]
        row.notes.append(f"the card's used memory grew by {said['grown']:,} B: ours and {rest:,} B for context and modules")
        if not -64 * MIB <= rest <= 2048 * MIB:
            row.wrong("the card's growth is not explained")
    return row


def framework_run(box, case, package, key):
    """(row, what the script said, our view of its process); nothing said where it can't be judged."""
    row = Row(case.name)
    if problem := lacks(box, package):
        row.verdict = SKIPPED
        row.notes.append(problem)
        return row, None, None
    ran, ours = traced_run(box, case, row)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        bare = box.run(command(box, case), case.limit, environment(case))
        (folder(box, case) / "bare.out").write_text(bare.out + bare.err)
        row.notes.append(bare.failure("without us it") or "without us it runs")
        return row, None, None
    said = told(ran.out)[1]
    if key not in said or said.get("pid") not in ours:
        row.wrong(f"no answer from the script, or no trace of it (traces: {sorted(ours)})")
        return row, None, None
    process = ours[said["pid"]]
    for complaint in process.complaints:
        row.wrong(complaint)
    return row, said[key] | {"groups": groups(box, case, said["pid"])}, process


def groups(box, case, pid):
    return json.loads((folder(box, case) / f"leaks-{pid}.json").read_text())["groups"]


def lines_of_the_script(case, groups, row):
    """Of how many bytes the stack leads to a line of the script. What a library's own threads allocate has none."""
    script = case.program.rpartition("/")[2]
    with_line, all_bytes, innermost = 0, 0, {}
    for group in groups:
        if group["layer"] == "host":
            continue
        lines = [
            frame["line"]
            for frame in group["stack"]
            if frame["language"] == "python" and (frame["file"] or "").endswith(script) and frame["line"]
        ]
        all_bytes += group["bytes"]
        if lines:
            with_line += group["bytes"]
            innermost[lines[0]] = innermost.get(lines[0], 0) + group["bytes"]
    most = sorted(innermost.items(), key=lambda item: -item[1])[:4]
    where = ", ".join(f"line {line}: {size:,} B" for line, size in most)
    row.notes.append(f"{with_line:,} of {all_bytes:,} B have a line of the script ({where})")
    if all_bytes and not with_line:
        row.wrong("no allocation has a line of the script")


def exact_if(package):
    """The usual check, where Python has the package."""

    def check(box, case):
        if problem := lacks(box, package):
            return Row(case.name, verdict=SKIPPED, notes=[problem])
        row = exact(box, case)
        for file in sorted(folder(box, case).glob("leaks-*.json")):
            document = json.loads(file.read_text() or "{}")
            lines_of_the_script(case, document.get("groups", []), row)
        return row

    return check


def needs(package):
    """A check that is skipped where Python lacks the package."""

    def around(check):
        @functools.wraps(check)
        def checked(box, case):
            if problem := lacks(box, package):
                return Row(case.name, verdict=SKIPPED, notes=[problem])
            return check(box, case)

        return checked

    return around


def lacks(box, package):
    if not box.python:
        return "no python"
    found = box.run([box.python, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is None)"], limit=30)
    return None if found.code == 0 else f"Python has no {package}"
