"""The usual check: what is live by the program's own count, by ours, and by compute-sanitizer."""

import gzip
import json
import shutil

from . import sanitizer, trace
from .box import HERE
from .case import DISPUTED, OK, SKIPPED, Row
from .sums import differences, recorded, said_otherwise, shown_all, told

SKIP = 77
"""Exit code of a program that can't do its job here; stderr says why."""


def command(box, case):
    """Words that start the case's program."""
    if case.program.startswith("python/"):
        return [box.python, HERE / "cases" / case.program, *case.arguments]
    place = box.binaries / case.program[4:] if case.program.startswith("bin/") else box.work / "built" / case.program
    return [place, *(word.format(built=box.work / "built") for word in case.arguments)]


def environment(case):
    return {"VERIFY_EXIT": case.exit_by, **case.environment}


def folder(box, case):
    """Where a case's logs go."""
    place = box.out / case.name
    place.mkdir(exist_ok=True)
    return place


def traced_run(box, case, row):
    """Runs it under the shim; what it said, and our view of each of its processes by pid."""
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    ran = box.run(command(box, case), case.limit, environment(case), traced=traces / "%p.vrt")
    (place / "traced.out").write_text(ran.out)
    (place / "traced.err").write_text(ran.err)
    ours = {}
    for file in sorted(traces.glob("*.vrt")):
        document = read_leaks(box, file, place)
        if isinstance(document, str):
            row.wrong(document)
            continue
        process = recorded(document)
        ours[process.pid] = process
        check_history(case, file, row)
    return ran, ours


def read_leaks(box, file, place, *options, everything=True):
    """`vramtrace leaks --json` of one trace, or why there is none. Everything: also what frameworks are known to keep."""
    options += ("--no-builtin-suppressions",) if everything else ()
    read = box.run([box.reader, "leaks", "--json", *options, file], limit=60)
    (place / f"leaks-{file.stem}.json").write_text(read.out)
    if read.code != 0:
        return read.failure("vramtrace leaks") or ""
    return json.loads(read.out)


def check_history(case, file, row):
    """Whether the rings lost history, where they were meant to."""
    if not case.history_lost:
        return
    lost = trace.overwritten(file)
    row.notes.append(f"{lost:,} events overwritten")
    if not lost:
        row.wrong("the ring was to be too small")


def keep_traces(box, case):
    """Traces of a case that went wrong, small enough to carry away."""
    for file in sorted((box.work / case.name).glob("*.vrt"))[:8]:
        with open(file, "rb") as source, gzip.open(folder(box, case) / f"{file.name}.gz", "wb", 1) as to:
            shutil.copyfileobj(source, to)


def exact(box, case):
    """Every kind, exactly; and the program must print the same as without us."""
    row = Row(case.name)
    if case.program.startswith("bin/") and not (box.binaries / case.program[4:]).is_file():
        row.verdict = SKIPPED
        row.notes.append(f"no {case.program[4:]} among the binaries")
        return row
    bare = box.run(command(box, case), case.limit, environment(case))
    (folder(box, case) / "bare.out").write_text(bare.out + bare.err)
    if bare.code == SKIP:
        row.verdict = SKIPPED
        row.notes.append(bare.err.strip()[-200:])
        return row
    if problem := bare.failure("without us the program"):
        row.wrong(problem)
        return row

    ran, ours = traced_run(box, case, row)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    if said_otherwise(bare.out) != said_otherwise(ran.out):
        row.wrong("it prints something else than without us (bare.out, traced.out)")
    compare(row, told(ran.out)[0], ours)
    if case.oracle and box.sanitizer:
        ask_sanitizer(box, case, row)
    return row


def compare(row, truths, ours):
    """Fills the row with both sides, and with every difference."""
    if not truths:
        row.wrong("the program did not say what is live")
        return
    row.truth = shown_all(truths)
    if len(truths) == 1 and not truths[0].pid:
        truths[0].pid = next(iter(ours), 0)
    matched = [ours[truth.pid] for truth in truths if truth.pid in ours]
    row.ours = shown_all(matched, kinds=truths[0].only)
    for truth in truths:
        if truth.pid not in ours:
            row.wrong(f"no trace of process {truth.pid}")
            continue
        for difference in differences(truth, ours[truth.pid]):
            row.wrong(difference)
        for complaint in ours[truth.pid].complaints:
            row.wrong(complaint)
    strangers = ours.keys() - {truth.pid for truth in truths}
    if strangers:
        row.wrong(f"traces of processes that said nothing: {sorted(strangers)}")


def ask_sanitizer(box, case, row):
    """The same program under compute-sanitizer, without us."""
    place = folder(box, case)
    ran, leaks = sanitizer.run(box, command(box, case), environment(case), place / "sanitizer.log", case.limit * 2)
    if leaks is None:
        row.oracle = "no answer"
        row.notes.append(ran.failure("compute-sanitizer") or "compute-sanitizer printed no leak summary")
        return
    row.oracle = sanitizer.shown(leaks)
    truths, _ = told(ran.out)
    if case.oracle == "show" or not truths:
        return
    if complaint := sanitizer.disagrees(leaks, truths):
        row.notes.append(f"compute-sanitizer: {complaint}")
        if row.verdict == OK:
            row.verdict = DISPUTED
