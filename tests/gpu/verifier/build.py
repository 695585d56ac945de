"""Compiles the programs, several at a time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .box import HERE, ROOT

CASES = HERE / "cases"
C_FLAGS = ["-O1", "-g", "-std=gnu11", "-fno-omit-frame-pointer"]
NVCC_FLAGS = ["-O1", "-g", "-std=c++17", "-arch=native", "-Xcompiler", "-fno-omit-frame-pointer"]
RUNTIME = ["mix", "reset", "trap", "graphs", "capture", "overhead"]


def commands(box):
    """Program -> the command that makes it (its output file goes at the end)."""
    made = {}
    for source in sorted((CASES / "driver").glob("*.c")):
        made[source.stem] = [box.cc, *C_FLAGS, source, "-ldl", "-lpthread"]
    if box.libcuda:
        for name in ("linear", "graphs"):
            made[f"{name}_linked"] = [
                box.cc, *C_FLAGS, "-DLINKED", CASES / f"driver/{name}.c",
                box.libcuda, "-Wl,--allow-shlib-undefined", "-lpthread",
            ]  # fmt: skip
    conformance = find_conformance(box)
    if conformance:
        made["conformance"] = [box.cc, *C_FLAGS, conformance, "-ldl", "-lpthread"]
    if box.driver_only:
        return made
    nvcc = [box.nvcc, *NVCC_FLAGS]
    for name in RUNTIME:
        made[f"runtime_{name}"] = [*nvcc, CASES / f"runtime/{name}.cu"]
    mix = CASES / "runtime/mix.cu"
    made["runtime_mix_shared"] = [*nvcc, "-cudart", "shared", *cudart_rpath(box), mix]
    made["runtime_graphs_shared"] = [*nvcc, "-cudart", "shared", *cudart_rpath(box), CASES / "runtime/graphs.cu"]
    made["runtime_mix_per_thread"] = [*nvcc, "--default-stream", "per-thread", mix]
    made["runtime_plugin.so"] = [*nvcc, "-shared", "-Xcompiler", "-fPIC", "-DPLUGIN", mix]
    made["runtime_plugin_host"] = [box.cc, *C_FLAGS, CASES / "runtime/plugin_host.c", "-ldl"]
    return made


def cudart_rpath(box):
    """So that the shared runtime is found where the compiler found it."""
    toolkit = Path(box.nvcc).resolve().parent.parent
    folders = [folder for folder in (toolkit / "lib64", toolkit / "targets/x86_64-linux/lib") if folder.is_dir()]
    return [word for folder in folders for word in ("-Xlinker", f"-rpath={folder}")]


def find_conformance(box):
    """The observations that must be the same on every driver: shared with the simulator's tests."""
    for place in (box.binaries / "conformance.c", ROOT / "tests/programs/conformance.c"):
        if place.is_file():
            return place
    return None


def build(box, wanted):
    """Compiles what is wanted; program -> why it could not be built."""
    folder = box.work / "built"
    folder.mkdir(exist_ok=True)
    every = commands(box)
    todo = {name: every[name] for name in wanted if name in every}
    failed = {name: "no way to build it here" for name in wanted if name not in every}

    def one(name):
        ran = box.run([*todo[name], "-o", folder / name], limit=120)
        if ran.code != 0:
            (box.out / f"build-{name}.log").write_text(ran.out + ran.err)
            failed[name] = ran.failure("its compiler") or ""

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, todo))
    return failed
