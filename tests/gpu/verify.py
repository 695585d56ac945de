#!/usr/bin/env python3
"""Runs programs that know what they allocated, and compares: their truth, vramtrace, compute-sanitizer.

See tests/gpu/README.md. Standard library only; scripts/gpu-verify starts it.
"""

import argparse
import json
import shutil
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from verifier.box import Box
from verifier.build import build
from verifier.case import WRONG, Row
from verifier.exact import keep_traces
from verifier.manifest import CASES, programs
from verifier.table import table

TOGETHER = 4
"""Cases that run at a time; what each allocates is its own, so they don't disturb one another."""


def arguments():
    parser = argparse.ArgumentParser(prog="gpu-verify", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bin", type=Path, metavar="DIR", help="holds libvramtrace.so, vramtrace; perhaps cudarc_client, conformance.c")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where logs, results.json and table.txt go")
    parser.add_argument("--only", default="", metavar="CASE,...", help="only these cases")
    parser.add_argument("--driver-only", action="store_true", help="only what needs no CUDA toolkit: runs on a simulated driver too")
    parser.add_argument("--python", default="python3", help="the Python that has torch, jax, cupy")
    parser.add_argument("--budget", type=float, default=345, metavar="S", help="begin no case after so many seconds [345]")
    parser.add_argument("--keep", action="store_true", help="keep programs and traces (OUT/work)")
    parser.add_argument("--list", action="store_true", help="names of the cases")
    return parser


def choose(parser, options):
    cases = [case for case in CASES if case.driver or not options.driver_only]
    if not options.only:
        return cases
    wanted = options.only.split(",")
    unknown = set(wanted) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; --list names them")
    return [case for case in cases if case.name in wanted]


def run_case(box, case, unbuilt, deadline):
    """One row; whatever goes wrong is the row's verdict."""
    began = time.monotonic()
    if began > deadline:
        return Row(case.name, verdict="NOT RUN", notes=["the time budget was used up"])
    reason = unbuilt.get(case.program) or unbuilt.get("runtime_plugin.so" if case.name == "runtime_plugin" else "")
    if reason and case.name != "conformance":
        row = Row(case.name)
        row.wrong(f"could not be built: {reason}")
        return row
    try:
        row = case.check(box, case)
    except Exception:
        row = Row(case.name, notes=[traceback.format_exc()])
        row.verdict = WRONG
    row.seconds = round(time.monotonic() - began, 1)
    if not row.passed:
        keep_traces(box, case)
    if not box.keep:
        shutil.rmtree(box.work / case.name, ignore_errors=True)
    print(f"{row.verdict:8} {row.case} ({row.seconds:.1f} s)", file=sys.stderr, flush=True)
    return row


def main():
    parser = arguments()
    options = parser.parse_args()
    if options.list:
        print("\n".join(case.name for case in CASES if case.driver or not options.driver_only))
        return 0
    if not options.bin or not options.out:
        parser.error("--bin and --out are needed")
    began = time.monotonic()
    cases = choose(parser, options)
    options.out.mkdir(parents=True, exist_ok=True)
    box = Box(options.bin.resolve(), options.out.resolve(), options.driver_only, options.python)
    box.keep = options.keep
    if lacking := box.missing():
        parser.error("; ".join(lacking))
    unbuilt = build(box, programs(cases))
    print(f"built in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)

    deadline = began + options.budget
    together = [case for case in cases if not case.alone]
    with ThreadPoolExecutor(TOGETHER) as pool:
        rows = list(pool.map(lambda case: run_case(box, case, unbuilt, deadline), together))
    rows += [run_case(box, case, unbuilt, deadline) for case in cases if case.alone]
    order = {case.name: place for place, case in enumerate(cases)}
    rows.sort(key=lambda row: order[row.case])

    seconds = round(time.monotonic() - began, 1)
    passed = all(row.passed for row in rows)
    text = "\n".join(table(rows)) + f"\n{sum(row.passed for row in rows)} of {len(rows)} cases fine, {seconds} s\n"
    print(text, end="")
    (box.out / "table.txt").write_text(text)
    results = {"schema": "vramtrace.gpu-verify/1", "passed": passed, "seconds": seconds, "cases": [asdict(row) for row in rows]}
    (box.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if not options.keep:
        shutil.rmtree(box.work, ignore_errors=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
