"""Allocations from every kind of Python frame. Usage: stacks.py WHAT..."""
import asyncio
import ctypes
import functools
import gc
import os
import sys
import threading

import driver
from driver import all_ways, alloc, alloc_async


def plain():
    class Model:
        layers = [all_ways() for _ in range(2)]

        def step(self):
            all_ways()
            list(map(lambda _: all_ways(), [0, 1]))
            sorted([2, 1], key=lambda n: all_ways() or n)
            functools.reduce(lambda a, b: all_ways(), [1, 2, 3])
            return [alloc() for _ in range(2)] + [
                alloc_async()
                for _ in range(2)
            ]

        @property
        def lazy(self):
            return all_ways()

        @staticmethod
        def nested():
            def inner():
                def innermost():
                    all_ways()

                innermost()

            inner()

        def __enter__(self):
            all_ways()

        def __exit__(self, *_):
            all_ways()

        def __getattr__(self, name):
            all_ways()
            return 1

    Model().step()
    Model().lazy
    Model.nested()
    with Model():
        all_ways()
    Model().missing
    # The same stack again and again: recognised, from the second time on.
    for _ in range(50):
        alloc_async()
        alloc()


def generators():
    def numbers():
        all_ways()
        yield 1
        all_ways()
        yield from others()

    def others():
        all_ways()
        got = yield 2
        assert got == 3
        all_ways()

    for_loop = numbers()
    next(for_loop)
    next(for_loop)
    try:
        for_loop.send(3)
    except StopIteration:
        all_ways()

    async def leaf():
        all_ways()
        await asyncio.sleep(0)
        all_ways()

    async def stream():
        for _ in range(2):
            await leaf()
            yield all_ways()

    async def main():
        async for _ in stream():
            all_ways()
        await asyncio.gather(leaf(), leaf())

    asyncio.run(main())


def exceptions():
    def fails(depth):
        if depth:
            fails(depth - 1)
        all_ways()
        raise ValueError(depth)

    try:
        fails(3)
    except ValueError:
        all_ways()
        try:
            raise KeyError from None
        except KeyError:
            all_ways()
        finally:
            all_ways()

    class Dies:
        def __del__(self):
            all_ways()

    Dies()
    cycle = [Dies()]
    cycle.append(cycle)
    del cycle
    gc.collect()


def recursion():
    sys.setrecursionlimit(5000)

    def recurse(depth):
        if depth:
            return recurse(depth - 1)
        all_ways()

    def through_c(depth):
        # Each level is a native call too.
        if depth:
            return max([depth], key=lambda n: through_c(n - 1) or 0)
        all_ways()

    # Threads with room for it, whatever the limit of the first one is.
    threading.stack_size(256 << 20)
    for target, depth in ((recurse, 1000), (through_c, 60)):
        in_thread(target, depth)
    threading.stack_size(0)


def in_thread(target, *arguments):
    def body():
        driver.use_context()
        target(*arguments)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


def threads():
    def work(number):
        driver.use_context()
        for _ in range(20):
            all_ways()

    started = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def names():
    """Names and files in every width; code that comes and goes at one address."""
    for name, file in (("naïve", "caf\xe9.py"), ("модель", "модель.py"), ("𝔪odel", "\U0001f40d.py"), ("f", "<string>"), ("f", "")):
        scope = {"all_ways": all_ways}
        exec(compile("\n\ndef %s():\n    all_ways()\n%s()\n" % (name, name), file, "exec"), scope)
    for number in range(300):
        lines, name, file = "\n" * (number % 3), "made_%d" % (number % 7), "<cell %d>" % (number % 5)
        source = "def %s():\n%s    alloc_async(); alloc()\n%s()\n" % (name, lines, name)
        exec(compile(source, file, "exec"), {"alloc_async": alloc_async, "alloc": alloc})


def foreign():
    """Threads that Python did not make: with Python in them, and without."""
    native = ctypes.CDLL(os.environ["NATIVE"])
    callback = ctypes.CFUNCTYPE(None)

    @callback
    def called_back():
        driver.use_context()
        all_ways()

    native.on_a_new_thread(called_back)
    # One after the other gets the thread state's memory again.
    native.on_a_new_thread(called_back)
    native.allocate_on_a_new_thread(ctypes.c_void_p(driver.context()), ctypes.c_size_t(77))


def forks():
    """Before the first use; and after it, past everything that notices a fork."""
    child = os.fork()
    driver.start()
    all_ways()
    if child == 0:
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    sys_fork = 57
    child = ctypes.PyDLL(None).syscall(sys_fork)
    if child == 0:
        all_ways()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def subinterpreters():
    """Whose frames its allocations have depends on the version; in a thread of its own they are always its own."""
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    run = getattr(interpreters, "run_string", None) or interpreters.exec
    # Isolated only where ctypes, and threads, work in those.
    for arguments, options in (((), {"isolated": False}), ((), {}), (("legacy",), {})):
        try:
            other = interpreters.create(*arguments, **options)
            assert run(other, "import ctypes") is None
            break
        except Exception:
            continue
    source = """
import sys, threading
sys.path.insert(0, %r)
import driver
def inside():
    driver.all_ways()
def body():
    driver.word = "at"
    driver._context.value = %d
    driver.use_context()
    inside()
driver.word = "inside"
inside()
thread = threading.Thread(target=body)
thread.start()
thread.join()
""" % (os.path.dirname(os.path.abspath(__file__)), driver.context())
    all_ways()
    sys.stdout.write("outside %s\n" % driver.json.dumps(driver.stack(sys._getframe()))), sys.stdout.flush(), run(other, source)
    all_ways()


if __name__ == "__main__":
    if "forks" not in sys.argv[1:]:
        driver.start()
    for what in sys.argv[1:]:
        globals()[what]()
