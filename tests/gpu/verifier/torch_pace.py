"""What tracing costs a PyTorch program: workers, bare and traced, measure in turn. Reported, never judged."""

import json
import os
import random
import subprocess
import threading
from pathlib import Path
from statistics import median

from .box import OURS
from .case import INFO, SKIPPED, Row
from .exact import command, folder
from .frameworks import lacks

ROUNDS = 31
WORKERS, LARGE_WORKERS = 5, 2
"""Of each kind: one process is faster than another of its kind by several percent, for as long as it lives. Of large ones,
as many as the card has room for."""
ANSWER = 90
"""Seconds that one answer may take; the first includes loading PyTorch."""
TRACED = {
    "every stack": {"VRAMTRACE_BUDGET": "off"},
    "Python stacks": {"VRAMTRACE_BUDGET": "off", "VRAMTRACE_STACKS": "python"},
    "no stacks": {"VRAMTRACE_STACKS": "off"},
    "production": {},
}
"""Settings; `production` is what a preloaded library does by itself."""


class Worker:
    """A program that measures when it is told to."""

    def __init__(self, words, log, settings):
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | settings
        self.log = open(log, "w")
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=env, text=True
        )

    def answer(self):
        watchdog = threading.Timer(ANSWER, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(f"a worker ended: {Path(self.log.name).read_text()[-300:]}")
        return json.loads(line)

    def measure(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(ANSWER)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def pace(box, case):
    """Each round asks all workers, in another order each time, and takes the median of those of one kind."""
    row = Row(case.name, verdict=INFO)
    if problem := lacks(box, "torch"):
        row.verdict = SKIPPED
        row.notes.append(problem)
        return row
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else box.work
    logs, workers, traces = folder(box, case), {}, []
    large = "large" in case.arguments
    count = LARGE_WORKERS if large else WORKERS
    try:
        for kind in ("bare", *TRACED):
            for number in range(count):
                name, settings = f"{kind.replace(' ', '-')}-{number}", {}
                if kind != "bare":
                    traces.append(place / f"vramtrace-pace-{os.getpid()}-{name}.vrt")
                    settings = {"LD_PRELOAD": str(box.shim), "VRAMTRACE_OUTPUT": str(traces[-1])} | TRACED[kind]
                workers.setdefault(kind, []).append(Worker(command(box, case), logs / f"{name}.err", settings))
        for worker in sum(workers.values(), []):
            worker.answer()
        if missing := [trace.name for trace in traces if not trace.exists()]:
            row.wrong(f"there are no traces {missing}")
            return row
        times = rounds(workers, ("step",) if large else ("pair", "step"))
    finally:
        for worker in sum(workers.values(), []):
            worker.end()
        for trace in traces:
            trace.unlink(missing_ok=True)
    (logs / "times.json").write_text(json.dumps(times))
    if not large:
        report_pairs(times, row)
    report_steps(times, row)
    row.notes.append(
        f"medians of {ROUNDS} interleaved rounds, {count} workers each; in brackets 95 % of 2,000 resamplings of the rounds"
    )
    return row


def rounds(workers, what_of):
    order, times = random.Random(1), {}
    for _ in range(ROUNDS):
        todo = [
            (f"{kind} {what}", worker, what) for kind, all_of_it in workers.items() for worker in all_of_it for what in what_of
        ]
        if "pair" in what_of:
            todo.append(("history", workers["bare"][0], "history"))
        order.shuffle(todo)
        answers = {}
        for name, worker, what in todo:
            answers.setdefault(name, []).append(worker.measure(what))
        for name, values in answers.items():
            times.setdefault(name, []).append(median(values))
    return times


def report_pairs(times, row):
    middle = {name: median(values) for name, values in times.items()}
    row.data |= {"pair_ns": middle, "added_ratio": {}}
    theirs = [history - bare for history, bare in zip(times["history"], times["bare pair"])]
    row.notes.append(
        f"torch.empty(1024) and its end: bare {middle['bare pair']:,.0f} ns, with PyTorch's own history {middle['history']:,.0f}; "
        + ", ".join(f"{kind} {middle[f'{kind} pair']:,.0f}" for kind in TRACED)
    )
    for kind in TRACED:
        ours = [traced - bare for traced, bare in zip(times[f"{kind} pair"], times["bare pair"])]
        costs = spread(ours, theirs, lambda a, b: median(a) / median(b) if median(b) > 0 else float("nan"))
        row.notes.append(f"{kind}: adds {median(ours):,.0f} ns to a pair, {said(costs)} what PyTorch's history adds")
        row.data["added_ratio"][kind] = costs


def report_steps(times, row):
    bare = times["bare step"]
    row.data |= {"bare_step_ns": median(bare), "step_ratio": {}}
    row.notes.append(f"a training step: bare {median(bare) / 1e6:.3f} ms")
    for kind in TRACED:
        steps = spread(times[f"{kind} step"], bare, lambda a, b: median(x / y for x, y in zip(a, b)))
        row.notes.append(f"{kind}: a training step {said(steps)} of bare")
        row.data["step_ratio"][kind] = steps


def spread(first, second, of):
    """A statistic of paired rounds, and where 95 % of its values in resampled rounds lie."""
    draw = random.Random(1)
    every = range(len(first))
    values = []
    for _ in range(2000):
        chosen = [draw.choice(every) for _ in every]
        values.append(of([first[at] for at in chosen], [second[at] for at in chosen]))
    values.sort()
    return {"value": of(first, second), "low": values[49], "high": values[-50]}


def said(ratio):
    return f"{ratio['value']:.3f}× [{ratio['low']:.3f}, {ratio['high']:.3f}]"
