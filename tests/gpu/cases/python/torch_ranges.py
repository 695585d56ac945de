"""Tensors made in NVTX ranges, and kept; says how many bytes and tensors are in which, and how often that was entered.

Of steps it says when they were entered and ended, each between two readings of the clock.

Without PyTorch's caching (PYTORCH_NO_CUDA_MEMORY_CACHING=1) each is an allocation of its own, of its own size.
"""
import json
import os
import threading
import time

import torch

kept = []
truth = {}


def keep(size, *ranges):
    kept.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    held = truth.setdefault(" > ".join(ranges), [0, 0])
    held[0] += size
    held[1] += 1


def worker():
    with torch.cuda.nvtx.range("worker"):
        keep(7 << 20, "worker")


torch.cuda.nvtx.range_push("before CUDA is used")
keep(512, "before CUDA is used")
torch.cuda.nvtx.range_pop()
steps = []
for step in range(10):
    entered = time.time_ns()
    torch.cuda.nvtx.range_push("step")
    entered = [entered, time.time_ns()]
    with torch.cuda.nvtx.range("nothing is allocated here"):
        time.sleep(0.001)
    for layer in range(2):
        with torch.cuda.nvtx.range(f"layer {layer}"):
            keep(1 << 20 | step << 9, "step", f"layer {layer}")
            torch.empty(3 << 20, dtype=torch.uint8, device="cuda")
    torch.cuda.nvtx.mark(f"end of step {step}")
    ended = time.time_ns()
    torch.cuda.nvtx.range_pop()
    steps.append([*entered, ended, time.time_ns()])
threads = [threading.Thread(target=worker) for _ in range(4)]
for thread in threads:
    thread.start()
started = torch.cuda.nvtx.range_start("of the process")
for thread in threads:
    thread.join()
keep(5 << 20, "of the process")
torch.cuda.nvtx.range_end(started)
with torch.cuda.nvtx.range("steps #"):
    keep(2 << 20, "steps #")
entered = {"before CUDA is used": 1, "step > layer 0": 10, "step > layer 1": 10, "worker": 4, "of the process": 1, "steps #": 1}
print(json.dumps({"pid": os.getpid(), "ranges": truth, "entered": entered, "marks": 10, "steps": steps}))
