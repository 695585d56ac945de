"""What Python stacks cost: an event with one over an event without, in turn in one run.

Usage: cost.py LIBRARY DRIVER NATIVE: libvramtrace.so, the folder of libcuda.so.1, python_native.c as a library.
"""
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time

PAIRS = 2000
SETTINGS = ("off", "python", "native", "both")


def traced():
    """In the traced process: nanoseconds an allocation and its free take at this depth, at best."""
    import driver

    native = ctypes.CDLL(os.environ["NATIVE"])
    driver.start()

    def deep(depth):
        # This function, main and the module are frames too.
        if depth > 3:
            return deep(depth - 1)
        best = float("inf")
        for _ in range(30):
            start = time.perf_counter_ns()
            native.storm(PAIRS, ctypes.c_size_t(512))
            best = min(best, (time.perf_counter_ns() - start) / PAIRS)
        return best

    print(deep(int(os.environ["DEPTH"])))


def main():
    library, driver_folder, native = sys.argv[1:]
    print("Python %s, a cudaMallocAsync and its free on the simulated driver, medians of 5" % sys.version.split()[0])
    for depth in (4, 22):
        found = {setting: [] for setting in SETTINGS}
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            for _ in range(5):
                for setting in SETTINGS:
                    environment = dict(
                        os.environ, LD_PRELOAD=library, LD_LIBRARY_PATH=driver_folder, NATIVE=native, DEPTH=str(depth),
                        VRAMTRACE_STACKS=setting, VRAMTRACE_BUDGET="off",
                        VRAMTRACE_OUTPUT=os.path.join(folder, "%p.vrt"),
                    )
                    output = subprocess.check_output([sys.executable, "-B", __file__], env=environment)
                    found[setting].append(float(output))
        base = statistics.median(found["off"])
        for setting in SETTINGS:
            median = statistics.median(found[setting])
            stack = "" if setting == "off" else "  (the stack: %.0f ns)" % (median - base)
            print("    %2d frames, stacks %-7s %7.0f ns %6.2f%s" % (depth, setting, median, median / base, stack))


if __name__ == "__main__":
    if "DEPTH" in os.environ:
        traced()
    else:
        main()
