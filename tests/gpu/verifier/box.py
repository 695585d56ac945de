"""The machine: its tools, our binaries, and how a program is run on it."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from glob import glob
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
OURS = ("LD_PRELOAD", "VRAMTRACE_", "VERIFY_", "NVTX_")
DRIVERS = "VRAMTRACE_SIM_"
"""What a simulated driver is told, by whoever runs on one."""


@dataclass(frozen=True)
class Ran:
    """What became of a program. `code` is None if it ran into its limit."""

    code: int | None
    out: str
    err: str
    seconds: float

    def failure(self, what):
        """A sentence, or None if it ended well."""
        if self.code == 0:
            return None
        how = "ran into its time limit" if self.code is None else f"ended with {self.code}"
        last = (self.err.strip().splitlines() or [""])[-1]
        return f"{what} {how}" + (f": {last[:200]}" if last else "")


class Box:
    """Tools and folders of one verification."""

    def __init__(self, binaries, out, driver_only=False, python="python3"):
        self.out = out
        self.work = out / "work"
        self.shim = binaries / "libvramtrace.so"
        self.reader = binaries / "vramtrace"
        self.binaries = binaries
        self.driver_only = driver_only
        self.python = shutil.which(python)
        self.cc = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
        self.nvcc = None if driver_only else tool("nvcc", "bin/nvcc")
        self.sanitizer = None if driver_only else tool("compute-sanitizer", "compute-sanitizer/compute-sanitizer", "bin/compute-sanitizer")
        self.libcuda = find_libcuda()
        self.work.mkdir(parents=True, exist_ok=True)

    def missing(self):
        """Why nothing can be verified here; empty if all is well."""
        wanted = {self.shim: "the library", self.reader: "the reader"}
        lacking = [f"{what} {path} does not exist" for path, what in wanted.items() if not path.is_file()]
        if not self.cc:
            lacking.append("no C compiler (cc, gcc, or $CC)")
        if not self.driver_only and not self.nvcc:
            lacking.append("no nvcc on PATH or under /usr/local/cuda*; --driver-only does without")
        return lacking

    def run(self, command, limit, env=None, traced=None, cwd=None):
        """Runs a program to its end, or kills it (and what it started) at the limit.

        `traced` is the pattern of its traces; without it the program runs bare."""
        variables = {name: value for name, value in os.environ.items() if name.startswith(DRIVERS) or not name.startswith(OURS)}
        variables |= env or {}
        if traced:
            # Cases compare every stack with the truth, unless they are about sampling.
            variables = {"VRAMTRACE_BUDGET": "off"} | variables
            variables |= {"LD_PRELOAD": str(self.shim), "VRAMTRACE_OUTPUT": str(traced)}
        else:
            variables = {name: value for name, value in variables.items() if name.startswith(DRIVERS) or not name.startswith("VRAMTRACE_")}
        began = time.monotonic()
        with subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            cwd=cwd,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=limit)
                code = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                code = None
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - began)


def tool(name, *below):
    """A tool on PATH, or in a CUDA toolkit in its usual place (the newest)."""
    found = shutil.which(name)
    if found:
        return found
    for place in ["/usr/local/cuda", *sorted(glob("/usr/local/cuda-*"), reverse=True)]:
        for path in below:
            if os.access(f"{place}/{path}", os.X_OK):
                return f"{place}/{path}"
    return None


def find_libcuda():
    """A libcuda to link with: the one that programs will load, or a toolkit's stub."""
    places = [place for place in os.environ.get("LD_LIBRARY_PATH", "").split(":") if place]
    places += ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64"]
    places += ["/usr/local/cuda/lib64/stubs", *sorted(glob("/usr/local/cuda-*/lib64/stubs"), reverse=True)]
    for place in places:
        for name in ("libcuda.so", "libcuda.so.1"):
            if os.path.exists(f"{place}/{name}"):
                return f"{place}/{name}"
    return None
