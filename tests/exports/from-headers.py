#!/usr/bin/env python3
"""Prints the libcuda exports of one CUDA release, sorted, from the headers of its runtime wheel.

usage: from-headers.py INCLUDE_DIR          needs gcc

NVIDIA's runtime wheels carry headers and libcudart, but no libcuda stub. The names are every prototype of cuda.h, cudaGL.h, cudaEGL.h and
cudaVDPAU.h with the old versions switched on, once with and once without per-thread default streams, plus the exports that other headers declare.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

# in the stub, declared in cudaProfiler.h or in no public header
ELSEWHERE = """cuProfilerInitialize cuProfilerStart cuProfilerStop cudbgApiAttach cudbgApiDetach cudbgApiInit cudbgGetAPI cudbgGetAPIVersion
cudbgMain cudbgReportDriverApiError cudbgReportDriverInternalError""".split()
# declared, and in neither the stub nor the driver on x86-64 Linux
ABSENT = {"cuEventCreateFromEGLSync"}
# just enough of the graphics headers for the preprocessor
GRAPHICS = ["GL/gl.h", "EGL/egl.h", "EGL/eglext.h", "vdpau/vdpau.h"]
SOURCE = "#include <stddef.h>\n#define __CUDA_API_VERSION_INTERNAL 1\n" + "".join(
    f"#include <{name}>\n" for name in ["cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h"])


def prototypes(include, empty, *defines):
    text = subprocess.run(["gcc", "-E", "-P", "-x", "c", "-", *defines, "-I", include, "-I", empty], input=SOURCE, text=True, check=True,
                          stdout=subprocess.PIPE).stdout
    return set(re.findall(r"\bCUresult\s+(cu\w+)\s?\([^;{}]*\)\s*;", text))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as empty:
        for name in GRAPHICS:
            path = pathlib.Path(empty, name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        names = prototypes(sys.argv[1], empty) | prototypes(sys.argv[1], empty, "-DCUDA_API_PER_THREAD_DEFAULT_STREAM")
    print("\n".join(sorted((names - ABSENT) | set(ELSEWHERE))))


main()
