"""Allocates through the driver API, and says from where: the trace must say the same.

Each allocation is a line `at API BYTES [[function, file, line], ...]`, innermost first, from the interpreter's own frames.
"""
import ctypes
import itertools
import json
import sys
import threading

# ctypes gives up the interpreter's lock around calls through the first, and keeps it through the second.
UNLOCKED = ctypes.CDLL("libcuda.so.1")
LOCKED = ctypes.PyDLL("libcuda.so.1")

_sizes = itertools.count(1001)
_context = ctypes.c_void_p()
_speaks = threading.Lock()
# What a line begins with; other interpreters of the process choose another word.
word = "at"


def must(result):
    assert result == 0, result


def start():
    must(UNLOCKED.cuInit(0))
    must(UNLOCKED.cuCtxCreate_v2(ctypes.byref(_context), 0, 0))


def context():
    return _context.value


def use_context():
    must(UNLOCKED.cuCtxSetCurrent(_context))


def stack(frame):
    frames = []
    while frame is not None:
        code = frame.f_code
        frames.append([getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno])
        frame = frame.f_back
    return frames


def _say(api, size, frame):
    with _speaks:
        sys.stdout.write("%s %s %d %s\n" % (word, api, size, json.dumps(stack(frame))))
        sys.stdout.flush()
    return size


# Each call stands in one line with what says where it stands: the frame is in that line during both.


def alloc(library=UNLOCKED):
    size, address = next(_sizes), ctypes.c_uint64()
    must(library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(_say("cuMemAlloc_v2", size, sys._getframe()))))
    return address.value


def alloc_async(library=UNLOCKED):
    size, address = next(_sizes), ctypes.c_uint64()
    must(library.cuMemAllocAsync(ctypes.byref(address), ctypes.c_size_t(_say("cuMemAllocAsync", size, sys._getframe())), None))
    return address.value


def all_ways():
    for library in (UNLOCKED, LOCKED):
        alloc(library); alloc_async(library)
