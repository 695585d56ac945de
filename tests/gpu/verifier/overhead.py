"""What a pair of allocation and free costs, bare and watched. Reported, never judged."""

import json
import os
from pathlib import Path
from statistics import median

from .case import INFO, Row
from .exact import command, folder

ROUNDS = 25
WHAT = ("async", "async_fast", "sync", "launch")
WAYS = {
    "bare": None,
    "no stacks": {"VRAMTRACE_STACKS": "off"},
    "every stack": {},
    "within the budget": {"VRAMTRACE_BUDGET": "0.5"},
}


def overhead(box, case):
    """Rounds of one process each way, so that drift of the machine meets all alike."""
    row = Row(case.name, verdict=INFO)
    times = {way: {what: [] for what in WHAT} for way in WAYS}
    # Where a trace lives by default: shared memory.
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else box.work
    for number in range(ROUNDS):
        for way, env in WAYS.items():
            traced = None if env is None else place / f"vramtrace-overhead-{os.getpid()}-{number}.vrt"
            ran = box.run(command(box, case), case.limit, env, traced=traced)
            if problem := ran.failure(f"{way}:"):
                row.wrong(problem)
                return row
            if traced and not traced.exists():
                row.wrong(f"{way}: no trace")
                return row
            if traced:
                traced.unlink()
            for what, value in json.loads(ran.out.splitlines()[-1]).items():
                times[way][what].append(value)
    (folder(box, case) / "times.json").write_text(json.dumps(times))
    for what in WHAT:
        middle = {way: median(times[way][what]) for way in WAYS}
        pairs = {
            way: median(watched / bare for watched, bare in zip(times[way][what], times["bare"][what])) for way in WAYS
        }
        row.data[what] = {"median_ns": middle, "median_ratio": pairs}
        least = {way: min(times[way][what]) for way in WAYS}
        row.data[what]["least_ns"] = least
        shown = ", ".join(f"{way} {middle[way]:,.0f} ns ({pairs[way]:.2f}×, least {least[way]:,.0f})" for way in WAYS)
        row.notes.append(f"{what if what == 'launch' else what + ' pair'}: {shown}")
    row.notes.append(f"medians of {ROUNDS} interleaved rounds; aim: async without stacks at most 1.15×")
    return row
