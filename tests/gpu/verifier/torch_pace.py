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
WORKERS = 3
"""Of each kind: one process is faster than another of its kind by several percent, for as long as it lives."""
ANSWER = 90
"""Seconds that one answer may take; the first includes loading PyTorch."""


class Worker:
    """A program that measures when it is told to."""

    def __init__(self, words, traced, shim, log):
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        if traced:
            env |= {"LD_PRELOAD": str(shim), "VRAMTRACE_OUTPUT": str(traced), "VRAMTRACE_BUDGET": "off"}
        self.log = open(log, "w")
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=env, text=True
        )
        self.answer()

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
    traces = [place / f"vramtrace-pace-{os.getpid()}-{number}.vrt" for number in range(WORKERS)]
    logs = folder(box, case)
    bare, traced, times = [], [], {name: [] for name in ("bare", "traced", "history", "bare step", "traced step")}
    order = random.Random(1)
    try:
        for number, trace in enumerate(traces):
            bare.append(Worker(command(box, case), None, None, logs / f"bare-{number}.err"))
            traced.append(Worker(command(box, case), trace, box.shim, logs / f"traced-{number}.err"))
            if not trace.exists():
                row.wrong("a traced worker has no trace")
                return row
        for _ in range(ROUNDS):
            todo = [
                (name, worker, what)
                for name, workers, what in (
                    ("bare", bare, "pair"), ("traced", traced, "pair"), ("history", bare[:1], "history"),
                    ("bare step", bare, "step"), ("traced step", traced, "step"),
                )
                for worker in workers
            ]
            order.shuffle(todo)
            answers = {name: [] for name in times}
            for name, worker, what in todo:
                answers[name].append(worker.measure(what))
            for name, values in answers.items():
                times[name].append(median(values))
    finally:
        for worker in bare + traced:
            worker.end()
        for trace in traces:
            trace.unlink(missing_ok=True)
    (logs / "times.json").write_text(json.dumps(times))
    report(times, row)
    return row


def report(times, row):
    middle = {name: median(values) for name, values in times.items()}
    ours = [traced - bare for traced, bare in zip(times["traced"], times["bare"])]
    theirs = [history - bare for history, bare in zip(times["history"], times["bare"])]
    row.notes.append(
        f"torch.empty(1024) and its end: bare {middle['bare']:,.0f} ns, traced {middle['traced']:,.0f}, "
        f"with PyTorch's own history {middle['history']:,.0f}"
    )
    costs = spread(ours, theirs, lambda a, b: median(a) / median(b) if median(b) > 0 else float("nan"))
    row.notes.append(f"added: ours {median(ours):,.0f} ns, PyTorch's history {median(theirs):,.0f} ns; ratio {said(costs)}")
    steps = spread(times["traced step"], times["bare step"], lambda a, b: median(x / y for x, y in zip(a, b)))
    row.notes.append(f"a training step: bare {middle['bare step'] / 1e6:.3f} ms, traced over bare {said(steps)}")
    row.notes.append(f"medians of {ROUNDS} interleaved rounds, {WORKERS} workers each; in brackets 95 % of 2,000 resamplings of the rounds")
    row.data |= {"median_ns": middle, "added_ratio": costs, "step_ratio": steps}


def spread(first, second, of):
    """A statistic of paired rounds, and where 95 % of its values in resampled rounds lie."""
    draw = random.Random(1)
    rounds = range(len(first))
    values = []
    for _ in range(2000):
        chosen = [draw.choice(rounds) for _ in rounds]
        values.append(of([first[at] for at in chosen], [second[at] for at in chosen]))
    values.sort()
    return {"value": of(first, second), "low": values[49], "high": values[-50]}


def said(ratio):
    return f"{ratio['value']:.3f}× [{ratio['low']:.3f}, {ratio['high']:.3f}]"
