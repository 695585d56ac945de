"""What nvidia-smi shows of a program, as `vramtrace run` recorded it, against cuMemGetInfo."""

import json

from .case import SKIPPED, Row
from .exact import command, environment, folder
from .sums import told

HELD = 512 << 20
"""What the program allocates."""


def shown(number):
    return "nothing" if number is None else f"{number:,}"


def nvidia_smi(box, case):
    row = Row(case.name)
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    doctor = json.loads(box.run([box.reader, "doctor", "--json"], limit=60).out)
    finding = next(finding for finding in doctor["findings"] if finding["check"] == "NVML")
    row.notes.append(finding["message"])
    if finding["status"] != "ok":
        row.verdict = SKIPPED
        return row
    traced = [box.reader, "run", "-o", traces / "%p.vrt", "--", *command(box, case)]
    ran = box.run(traced, case.limit, environment(case))
    (place / "traced.out").write_text(ran.out)
    (place / "traced.err").write_text(ran.err)
    if problem := ran.failure("under us the program"):
        row.wrong(problem)
        return row
    _, said = told(ran.out)
    files = list(traces.glob("*.vrt"))
    if len(files) != 1 or "used" not in said:
        row.wrong("no trace, or the program did not say what is used")
        return row
    summary = box.run([box.reader, "summary", "--json", files[0]], limit=60)
    (place / "summary.json").write_text(summary.out)
    devices = json.loads(summary.out)["processes"][0]["nvidia_smi"]
    row.truth = f"used {said['used']:,}"
    if len(devices) != 1:
        row.wrong(f"numbers of {len(devices)} devices: {ran.err.strip()[-200:]}")
        return row
    found = row.data["nvidia_smi"] = devices[0]
    peak, reserved = found["process_peak_bytes"], found["reserved_bytes"]
    row.ours = f"used {found['used_peak_bytes']:,}, process {shown(peak)}"
    row.notes.append(f"{found['samples']} samples, reserved {shown(reserved)}, total {found['total_bytes']:,} (CUDA's {said['total']:,})")
    if found["samples"] < 3:
        row.wrong("it was asked less than three times")
    # Where the driver does not tell them apart, the reserved bytes are in it.
    if reserved is not None and found["used_peak_bytes"] != said["used"]:
        row.wrong("NVML and cuMemGetInfo count differently, or somebody else uses the card")
    if peak is None:
        row.notes.append("NVML does not say what the process has")
    elif not HELD <= peak <= found["used_peak_bytes"]:
        row.wrong("the process's number is less than it holds, or more than all that is used")
    return row
