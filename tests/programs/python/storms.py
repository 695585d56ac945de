"""What stacks cost in storms of allocations on the simulated driver, within a budget of 0.5 % of a core, after the first
second: python3 storms.py LIBRARY VRAMTRACE DRIVER_FOLDER STORM"""
import json
import os
import subprocess
import sys
import tempfile

library, reader, driver, storm = sys.argv[1:]
shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
print("Stacks within a budget of 0.5 % of a core, after the first second, in 6 seconds")
for rate in (10, 1_000, 10_000, 100_000, 0):
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        trace = os.path.join(folder, "a.vrt")
        environment = dict(
            os.environ, LD_PRELOAD=library, LD_LIBRARY_PATH=driver, VRAMTRACE_OUTPUT=trace, VRAMTRACE_BUDGET="0.5"
        )
        said = subprocess.check_output([storm, str(rate), "6"], env=environment, text=True)
        said = json.loads(said.splitlines()[0])
        process = json.loads(subprocess.check_output([reader, "summary", "--json", trace]))["processes"][0]
        sampling = process["sampling"]
        made = sum(a["allocated"]["count"] for a in process["accounts"] if a["layer"] == "framework")
        assert made == said["allocations"], (made, said)
        later = [one for one in sampling["intervals"] if one["last_ns"] > process["start_ns"] + 10**9]
        cost = sum(one["stack_ns"] for one in later) / sum(one["ns"] for one in later) * 100
        print(
            "    %9.0f allocations a second: %.2f %% (%.2f %% altogether), %d changes; the rest %.2f %%, %s ns an event"
            % (made / said["seconds"], cost, sampling["stack_percent"], sampling["changes"],
               sampling["event_percent"] or 0, sampling["event_ns"])
        )
