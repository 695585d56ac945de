"""The number that nvidia-smi shows, explained: by `vramtrace run` and `reconcile`, against NVML and PyTorch."""

import json

from .case import SKIPPED, Row
from .exact import command, environment, folder
from .frameworks import needs
from .sums import told

MIB = 1 << 20
SMALL, SHARE = 32 * MIB, 0.01
"""What may stay unexplained: so many bytes, or this share of the number."""


@needs("torch")
def reconcile(box, case):
    row = Row(case.name)
    place, trace = folder(box, case), box.work / f"{case.name}.vrt"
    ran = box.run([box.reader, "run", "-f", "-o", trace, "--", *command(box, case)], case.limit, environment(case))
    (place / "run.out").write_text(ran.out + ran.err)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    said = told("\n".join(line for line in ran.out.splitlines() if line.startswith("{")))[1]["reconcile"]
    answer = box.run([box.reader, "reconcile", "--json", "--to", "mark:reconcile", trace], 60)
    (place / "reconcile.json").write_text(answer.out + answer.err)
    if problem := answer.failure("vramtrace reconcile"):
        row.wrong(problem)
        return row
    [tree] = json.loads(answer.out)["trees"]
    row.data["tree"] = tree
    show(row, said, tree)
    return row


def shared(box, case):
    """Two processes that begin at the same time on one card: neither's context may be taken for more than it is."""
    row = Row(case.name)
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    both = ["sh", "-c", '"$@" & "$@"; code=$?; wait $! && exit $code', "sh", *command(box, case)]
    ran = box.run([box.reader, "run", "-o", traces / "%p.vrt", "--", *both], case.limit, environment(case))
    (place / "run.out").write_text(ran.out + ran.err)
    if problem := ran.failure("under us the programs"):
        row.wrong(problem)
        return row
    files = sorted(traces.glob("*.vrt"))
    row.truth, row.ours = "2 processes", f"{len(files)} traces"
    if len(files) != 2:
        row.wrong("not a trace of each")
    for file in files:
        answer = box.run([box.reader, "reconcile", "--json", file], 60)
        (place / f"reconcile-{file.stem}.json").write_text(answer.out + answer.err)
        if problem := answer.failure("vramtrace reconcile"):
            row.wrong(problem)
            continue
        [tree] = json.loads(answer.out)["trees"]
        number = (tree["shown"] or {}).get("process_bytes")
        if number is None:
            row.verdict = SKIPPED
            row.notes.append("NVML does not say what the processes have")
            return row
        [context] = [line for line in tree["lines"] if line["part"] == "context"]
        left = number - tree["explained"]
        row.notes.append(
            f"shown {number / MIB:,.1f} MiB, context {context['bytes'] / MIB:,.1f} ({context['basis']}), "
            f"unexplained {left / MIB:,.1f}"
        )
        if abs(left) > max(SMALL, SHARE * number):
            row.wrong("too much is not explained")
    return row


def show(row, said, tree):
    shown = (tree["shown"] or {}).get("process_bytes")
    row.truth = f"{said['shown'] or 0:,} B"
    row.ours = f"{shown or 0:,} B"
    lines = []
    for line in sorted(tree["lines"], key=lambda line: -line["bytes"]):
        inner = ", ".join(f"{part['part']} {part['bytes'] / MIB:,.1f}" for part in line.get("within", []))
        lines.append(f"{line.get('name') or line['part']} {line['bytes'] / MIB:,.1f}" + (f" ({inner})" if inner else ""))
    row.notes.append("MiB: " + ", ".join(lines))
    row.notes.extend(tree["notes"])
    if shown is None:
        row.wrong("nobody sampled nvidia-smi's number")
        number, explained = said["shown"] or said["device_used"], tree["explained"]
    else:
        number, explained = shown, tree["explained"]
        if shown != said["shown"]:
            row.wrong(f"NVML said {said['shown']} to the program")
    left = number - explained
    row.notes.append(f"unexplained {left / MIB:,.1f} MiB, {left / number:.2%} of {number / MIB:,.1f}")
    if abs(left) > max(SMALL, SHARE * number):
        row.wrong("too much is not explained")
    if [line["basis"] for line in tree["lines"] if line["part"] == "context"] != ["measured"]:
        row.wrong("the context of a process that is alone was not measured")
    torch = [line for line in tree["lines"] if line["part"] == "torch-reserved"]
    if sum(line["bytes"] for line in torch) != said["reserved"]:
        row.wrong(f"PyTorch reserved {said['reserved']:,} B")
    used = [part["bytes"] for line in torch for part in line.get("within", []) if part["part"] == "in-use"]
    if used and sum(used) != said["allocated"]:
        row.wrong(f"PyTorch's tensors take {said['allocated']:,} B, ours {sum(used):,} B")
