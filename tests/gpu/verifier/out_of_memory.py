"""Running out of memory: does a rescue help, and do the files alone tell the story once the program was killed?"""

import json
import os
import re
import signal
import subprocess
import threading

from .box import OURS
from .case import INFO, Row
from .exact import command, environment, folder
from .frameworks import needs
from .sums import told

UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def rescue(box, case):
    """A pool's unused reserve in the way of cuMemAlloc."""
    row = Row(case.name)
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    ran = box.run(command(box, case), case.limit, environment(case), traced=traces / "%p.vrt")
    (place / "traced.out").write_text(ran.out + ran.err)
    if problem := ran.failure("the program"):
        row.wrong(problem)
        return row
    said = told(ran.out)[1]["rescue"]
    failures = read(box, place, "oom", next(traces.glob("*.vrt")))["failures"]
    row.truth = f"asked {said['asked']:,}: {said['result']}; reserve {said['before']:,}, then {said['after']:,}"
    row.ours = f"{len(failures)} failed"
    row.data["rescue"] = said
    asked_for = case.environment["VRAMTRACE_ON_OOM"] == "rescue"
    if not failures:
        row.notes.append("the driver gave the pool's reserve back by itself: cuMemAlloc did not fail")
        if said["result"] != 0:
            row.wrong("it failed, and that is not on record")
        return row
    found = failures[0]["rescue"]
    row.data["recorded"] = found
    if not asked_for:
        row.verdict = INFO
        row.notes.append("cuMemAlloc fails though a pool of this process holds enough unused")
        if said["result"] != 2 or found is not None:
            row.wrong("a rescue that nobody asked for")
        return row
    row.notes.append(f"rescue: {found}")
    if said["result"] != 0 or not found or not found["saved"]:
        row.wrong("it was not saved")
    elif found["given_back_bytes"] < said["before"] - said["after"]:
        row.wrong("less was given back than the pool has lost")
    return row


@needs("torch")
def torch_oom(box, case):
    """The program is killed when it has said what PyTorch says."""
    row = Row(case.name)
    place, traces = folder(box, case), box.work / case.name
    traces.mkdir(exist_ok=True)
    said = killed(box, case, place, traces)
    if isinstance(said, str):
        row.wrong(said)
        return row
    document = read(box, place, "oom", traces)
    failures, mode = document["failures"], case.arguments[0]
    row.data["said"] = {name: value for name, value in said.items() if name != "segments"}
    row.truth = f"{mode}: {'refused' if said['message'] else 'granted'}, {said['allocated']:,} of {said['reserved']:,}"
    row.ours = f"{len(failures)} failures" + (f", the last: {failures[-1]['fate']}" if failures else "")
    if document["processes"][0]["end"] != "killed":
        row.wrong(f"the process ended as {document['processes'][0]['end']}")
    if mode == "saved":
        saved(row, case, said, failures)
    else:
        refused(row, said, failures)
    if mode == "fragmented":
        fragmented(box, row, place, traces, said)
    return row


def saved(row, case, said, failures):
    """With rescue the tensor is there; without, PyTorch gave up, unless the driver helped itself."""
    if not failures:
        row.notes.append("the driver gave the pool's reserve back by itself")
        if said["message"]:
            row.wrong("PyTorch failed, and nothing is on record")
    elif case.environment["VRAMTRACE_ON_OOM"] == "rescue":
        row.notes.append(f"rescue: {failures[-1]['rescue']}")
        if said["message"] or failures[-1]["fate"] != "rescued":
            row.wrong(f"not rescued: {said['message']}")
        if said["ooms"]:
            row.wrong("PyTorch counts an out-of-memory that it was to be spared")
    else:
        refused(row, said, failures)


def refused(row, said, failures):
    """PyTorch's own words and numbers, to the byte."""
    if not said["message"]:
        row.wrong("PyTorch got what it was not to get")
        return
    last = failures[-1] if failures else {}
    gave_up = last.get("framework")
    if not gave_up:
        row.wrong("that PyTorch gave up is not on record")
        return
    for name in ("allocated", "reserved"):
        if gave_up[f"{name}_bytes"] != said[name]:
            row.wrong(f"{name}: PyTorch {said[name]:,}, ours {gave_up[f'{name}_bytes']:,}")
    if gave_up["asked_bytes"] < said["wanted"]:
        row.wrong(f"asked: PyTorch {said['wanted']:,}, ours {gave_up['asked_bytes']:,}")
    text = re.search(r"Tried to allocate ([\d.]+) (\w+)", said["message"])
    if not text or abs(float(text[1]) * UNITS.get(text[2], 1) - said["wanted"]) > 0.01 * UNITS.get(text[2], 1) + 512:
        row.wrong(f"not the exception that was meant: {said['message'][:120]}")
    if not last["snapshot"]:
        row.wrong("no snapshot of it")
    held = last["held"]
    tensors = held and held["used"]["bytes"]
    row.notes.append(f"held then {tensors:,} B; PyTorch {said['allocated']:,} B" if tensors else "who held it is not known")
    if not tensors or tensors < said["allocated"]:
        row.wrong("less was held than PyTorch had handed out")


def fragmented(box, row, place, traces, said):
    """The same segments, of the same bytes, used and unused."""
    device = read(box, place, "fragmentation", next(traces.glob("*.vrt")), "--top", "0")["fragmentation"][0]
    for name, ours in (("allocated", device["used"]["bytes"]), ("reserved", device["reserved"]["bytes"])):
        if said[name] != ours:
            row.wrong(f"fragmentation, {name}: PyTorch {said[name]:,}, ours {ours:,}")
    ours = sorted([int(one["address"], 16), one["bytes"], one["used"]["bytes"]] for one in device["segments"])
    if ours != said["segments"]:
        row.wrong(f"segments: PyTorch {len(said['segments'])}, ours {len(ours)}, or other bytes")


def read(box, place, what, *words):
    answer = box.run([box.reader, what, "--json", *words], limit=60)
    (place / f"{what}.json").write_text(answer.out + answer.err)
    return json.loads(answer.out)


def killed(box, case, place, traces):
    """Runs it until it has said its line, and kills it. What it said, or why there is nothing."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    variables |= environment(case) | {"LD_PRELOAD": str(box.shim), "VRAMTRACE_OUTPUT": str(traces / "%p.vrt")}
    with open(place / "traced.err", "wb") as err:
        process = subprocess.Popen(
            [str(word) for word in command(box, case)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, env=variables
        )
        limit = threading.Timer(case.limit, process.kill)
        limit.start()
        line = b""
        try:
            for line in process.stdout:
                if line.startswith(b"{"):
                    break
        finally:
            limit.cancel()
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    (place / "traced.out").write_bytes(line)
    return json.loads(line) if line.startswith(b"{") else "the program said nothing"
