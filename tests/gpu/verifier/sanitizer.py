"""compute-sanitizer's leak check, as an independent oracle.

It reports leaks when a context goes, so programs reset the device first (VERIFY_RESET). Known to
differ: it counts what a reset ended as leaked, misses cuMemCreate, calls IPC imports and memory that
a graph freed leaked, and (2025.3, seen on an H100) lists neither arrays nor blocks of explicit pools.
"""

import re

LEAK = re.compile(r"Leaked ([\d,]+) bytes at (0x[0-9a-fA-F]+)")
FRAME = re.compile(r"Host Frame:\s*(?:\S+!)?(cu\w+)")
SUMMARY = re.compile(r"LEAK SUMMARY: ([\d,]+) bytes leaked in ([\d,]+) allocations?")
ARRAY_CALL = re.compile(r"Array")
HOST_CALL = re.compile(r"Host")

DEVICE_KINDS = ("device", "managed", "async")


def run(box, command, environment, log, limit):
    """Runs a program under it; what became of it, and the leaks (None if it gave none)."""
    ran = box.run(
        [box.sanitizer, "--tool", "memcheck", "--leak-check", "full", "--report-api-errors", "no",
         "--print-limit", "100000", "--log-file", log, *command],
        limit,
        environment | {"VERIFY_RESET": "1"},
    )  # fmt: skip
    text = log.read_text(errors="replace") if log.exists() else ""
    (log.parent / "sanitizer.out").write_text(ran.out + ran.err)
    return ran, leaks(text)


def leaks(text):
    """[(bytes, name of the call that allocated, or '')], or None without a leak summary."""
    found = []
    for line in text.splitlines():
        if match := LEAK.search(line):
            found.append([int(match[1].replace(",", "")), ""])
        elif found and not found[-1][1] and (match := FRAME.search(line)):
            found[-1][1] = match[1]
    if not found and not SUMMARY.search(text) and "No leaks" not in text:
        return None
    return [tuple(leak) for leak in found]


def shown(found):
    return f"{len(found)}, {sum(size for size, _ in found):,} B"


def disagrees(found, truths):
    """Where it disagrees with the programs, as a sentence; None if it agrees.

    Host memory may be in its answer or not; either is taken. Where a leak's backtrace does not name
    the call, only the number of leaks can be compared."""
    arrays = [leak for leak in found if ARRAY_CALL.search(leak[1])]
    host = [leak for leak in found if HOST_CALL.search(leak[1])]
    device = [leak for leak in found if leak not in arrays and leak not in host]
    wanted, wanted_arrays, wanted_host = [0, 0], 0, 0
    for truth in truths:
        for (kind, _), (size, count) in truth.sums.items():
            if kind in DEVICE_KINDS:
                wanted[0] += size
                wanted[1] += count
            elif kind == "array":
                wanted_arrays += count
            elif kind in ("pinned", "registered"):
                wanted_host += count
    if any(not call for _, call in found):
        if wanted[1] <= len(found) <= wanted[1] + wanted_arrays * 2 + wanted_host:
            return None
        return f"{len(found)} leaks, where the program counts {wanted[1]}, and {wanted_arrays} arrays and {wanted_host} of host memory"
    got = [sum(size for size, _ in device), len(device)]
    complaints = []
    if got != wanted:
        complaints.append(f"{got[1]}, {got[0]:,} B of device memory where the program counts {wanted[1]}, {wanted[0]:,} B")
    return "; ".join(complaints) or None
