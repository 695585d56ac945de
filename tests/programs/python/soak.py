"""Many captures beside threads that change and look at everything. Usage: soak.py CAPTURES

Prints, for each stack, how often it allocated and how many bytes each time.
"""
import collections
import ctypes
import gc
import json
import os
import sys
import threading

import driver

captures = int(sys.argv[1])
# Taking the interpreter's lock from threads that hardly let it go is what takes time here.
AT_ONCE = max(50, captures // 600)
libraries = [ctypes.CDLL(os.environ["NATIVE"]), ctypes.PyDLL(os.environ["NATIVE"])]
counts = collections.Counter()
sizes = {}
counting = threading.Lock()
stop = False


def note(size, frame):
    stack = json.dumps(driver.stack(frame))
    with counting:
        counts[stack] += AT_ONCE
        assert sizes.setdefault(stack, size) == size
    return ctypes.c_size_t(size)


def site(depth, library, size):
    if depth:
        return site(depth - 1, library, size)
    library.storm(AT_ONCE, note(size, sys._getframe()))


def generator(depth, library, size):
    if depth:
        yield from generator(depth - 1, library, size)
    else:
        library.storm(AT_ONCE, note(size, sys._getframe()))
        yield


def work(number, rounds):
    driver.use_context()
    for turn in range(rounds):
        depth = turn % 20
        # One size a stack.
        size = 512 * (1 + number % 2 + 2 * depth)
        if number % 2:
            site(depth, libraries[0], size), site(depth, libraries[1], size)
        else:
            list(generator(depth, libraries[turn // 20 % 2], size))


def looks():
    while not stop:
        for frame in list(sys._current_frames().values()):
            while frame is not None:
                frame.f_locals, frame.f_lineno
                frame = frame.f_back


def makes():
    number = 0
    while not stop:
        number += 1
        scope = {}
        exec(compile("\n" * (number % 9) + "def f%d():\n    return [0]" % (number % 5), "<%d>" % number, "exec"), scope)
        scope["f%d" % (number % 5)]()
        if number % 50 == 0:
            gc.collect()


driver.start()
workers = [(n, threading.Thread(target=lambda n=n: work(n, captures // AT_ONCE // 6))) for n in range(4)]
others = [threading.Thread(target=target) for target in (looks, makes)]
for thread in [thread for _, thread in workers] + others:
    thread.start()
for _, thread in workers:
    thread.join()
stop = True
for thread in others:
    thread.join()
for stack, count in counts.items():
    print("storm %d %d %s" % (count, sizes[stack], stack))
