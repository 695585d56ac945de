"""Tensors of the stand-in for PyTorch's allocator, each with where it was made; a list keeps them until the interpreter ends.

Usage: torch.py MODE. Lines as driver.py's; torch has no API of its own.
"""
import ctypes
import json
import os
import sys
import threading

library = ctypes.CDLL(os.environ["TORCH_LIBRARY"])
library.torch_malloc.restype = ctypes.c_uint64
library.torch_malloc.argtypes = ctypes.c_size_t, ctypes.c_int
library.torch_free.argtypes = (ctypes.c_uint64,)
library.torch_mode(sys.argv[1].encode())
speaks = threading.Lock()


def stack(frame):
    frames = []
    while frame is not None:
        code = frame.f_code
        frames.append([getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno])
        frame = frame.f_back
    return frames


def say(size, frame):
    with speaks:
        sys.stdout.write("at  %d %s\n" % ((size + 511) // 512 * 512, json.dumps(stack(frame))))
    return size


class Tensor:
    """Frees its memory when it dies, as PyTorch's do: also when the interpreter goes down."""

    def __init__(self, size, said=True):
        self.free = library.torch_free
        # One line: the frame is in it while it speaks and while it allocates.
        self.address = library.torch_malloc(say(size, sys._getframe()) if said else size, 0)

    def __del__(self):
        self.free(self.address)


kept = []


def step(number):
    kept.append(Tensor(1000 + number))
    Tensor(5 << 20, said=False)
    kept.extend(Tensor(size) for size in (3 << 20, 700))


class Cycle:
    def __init__(self):
        self.itself = self
        self.tensor = Tensor(100000)


def work(numbers):
    for number in numbers:
        step(number)


for number in range(5):
    step(number)
cycles = [Cycle() for _ in range(3)]
threads = [threading.Thread(target=work, args=(range(n, n + 20),)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.stdout.flush()
library.torch_say()
