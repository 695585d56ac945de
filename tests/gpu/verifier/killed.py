"""A process killed at a random instant: its trace must hold what it had, but for calls in flight."""

import os
import random
import signal
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from .case import Row
from .exact import command, folder, read_leaks
from .sums import recorded, shown

THREADS, SLOTS = 4, 64
EMPTY, ALLOCATING, KEPT, FREEING = range(4)
TIMES = 20


def killed(box, case):
    """Kills it twenty times, some at a time: as many as have a core for each of their threads."""
    row = Row(case.name)
    (box.work / case.name).mkdir(exist_ok=True)
    with ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 1) // THREADS))) as pool:
        outcomes = list(pool.map(lambda number: once(box, case, number), range(TIMES)))
    (folder(box, case) / "repetitions.txt").write_text("".join(f"{text}\n" for text, _ in outcomes))
    wrong = [text for text, fine in outcomes if not fine]
    row.truth = f"{TIMES} kills"
    row.ours = f"{TIMES - len(wrong)} as logged"
    for text in wrong[:5]:
        row.wrong(text)
    return row


def once(box, case, number):
    """One life; (what came of it, whether that is right)."""
    log = box.work / case.name / f"log-{number}"
    traces = box.work / case.name / f"traces-{number}"
    traces.mkdir()
    log.write_bytes(bytes(THREADS * SLOTS * 16))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("VRAMTRACE_", "LD_PRELOAD"))}
    env |= {"LD_PRELOAD": str(box.shim), "VRAMTRACE_OUTPUT": str(traces / "%p.vrt"), "VRAMTRACE_BUDGET": "off"}
    process = subprocess.Popen([*map(str, command(box, case)), str(log)], env=env, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + case.limit
        while not any(log.read_bytes()):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                return f"{number}: it did not start: {process.communicate()[1].decode(errors='replace')[-200:]}", False
            time.sleep(0.005)
        time.sleep(random.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
        process.stderr.close()
    kept, flying = state(log.read_bytes())
    files = list(traces.glob("*.vrt"))
    if len(files) != 1:
        return f"{number}: {len(files)} traces", False
    document = read_leaks(box, files[0], folder(box, case))
    if isinstance(document, str):
        return f"{number}: {document}", False
    ours = recorded(document)
    size, count = ours.total()
    fits = any(size == sum(kept) + sum(extra) and count == len(kept) + len(extra) for extra in subsets(flying))
    said = f"{number}: logged {shown((sum(kept), len(kept)))}, in flight {flying}; ours {shown((size, count))}"
    if ours.complaints:
        said, fits = f"{said}; {ours.complaints}", False
    if fits:
        files[0].unlink()
    else:
        # Where keep_traces looks.
        files[0].rename(box.work / case.name / f"{number}.vrt")
    return said, fits


def state(data):
    """Bytes that were certainly live, and bytes of calls in flight."""
    kept, flying = [], []
    for size, what in struct.iter_unpack("<2Q", data):
        if what == KEPT:
            kept.append(size)
        elif what != EMPTY:
            flying.append(size)
    return kept, flying


def subsets(items):
    for mask in range(1 << len(items)):
        yield [item for bit, item in enumerate(items) if mask >> bit & 1]
