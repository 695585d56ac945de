"""Allocations while the interpreter goes down: from exit handlers, finalizers, and threads that nobody waits for."""
import atexit
import ctypes
import os
import sys
import threading

import driver

native = ctypes.CDLL(os.environ["NATIVE"])


class Dies:
    """Holds what it needs: modules may be gone when it dies."""

    def __init__(self):
        self.address = ctypes.c_uint64()
        self.call = driver.UNLOCKED.cuMemAlloc_v2
        self.arguments = (ctypes.byref(self.address), ctypes.c_size_t(4096))

    def __del__(self):
        self.call(*self.arguments)


driver.start()
held = Dies()
sys.held_by_a_module_that_dies_late = Dies()
atexit.register(driver.all_ways)


def storms(number):
    driver.use_context()
    while True:
        native.storm(20, ctypes.c_size_t(512 * number))


for number in range(1, 5):
    threading.Thread(target=storms, args=(number,), daemon=True).start()
for _ in range(200):
    driver.alloc_async()
