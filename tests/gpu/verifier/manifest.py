"""All cases. See tests/gpu/README.md for what each is about."""

from .case import Case
from .conformance import conformance_if_there
from .devices import devices, ranks
from .exact import exact
from .failures import failures
from .frameworks import exact_if, jax, torch
from .killed import killed
from .nvidia_smi import nvidia_smi
from .out_of_memory import rescue, torch_oom
from .overhead import overhead
from .reconcile import reconcile, shared
from .torch_blocks import moment, planted
from .torch_pace import pace
from .ranges import ranges
from .storm import storm


def driver(name, check=exact, program=None, **more):
    return Case(name, program or name, check, driver=True, **more)


def runtime(name, **more):
    return Case(name, name, exact, **more)


def torch_case(name, settings, check=torch, script="torch_training"):
    env = {"PYTORCH_CUDA_ALLOC_CONF": settings, "PYTORCH_ALLOC_CONF": settings} if settings else {}
    return Case(name, f"python/{script}.py", check, environment=env, limit=150)


def torch_leak(which):
    return Case(f"torch_leak_{which}", "python/torch_leaks.py", planted, arguments=(which,), limit=150)


def out_of_memory(which, policy):
    name = f"torch_oom_{which}" + ("_rescue" if policy == "rescue" else "")
    environment = {"VRAMTRACE_ON_OOM": policy}
    return Case(name, "python/torch_oom.py", torch_oom, environment=environment, arguments=(which,), alone=True, limit=150)


def jax_case(name, **env):
    env = {f"XLA_PYTHON_CLIENT_{key}": value for key, value in env.items()}
    return Case(name, "python/jax_arrays.py", jax, environment=env, alone=True, limit=150)


CASES = [
    # Slow ones first, so that they run beside the others.
    torch_case("torch", ""),
    torch_case("torch_expandable", "expandable_segments:True"),
    torch_case("torch_async", "backend:cudaMallocAsync", exact_if("torch")),
    torch_case("torch_blocks", "", moment, "torch_blocks"),
    torch_case("torch_blocks_expandable", "expandable_segments:True", moment, "torch_blocks"),
    torch_case("torch_blocks_async", "backend:cudaMallocAsync", moment, "torch_blocks"),
    Case("torch_blocks_compiled", "python/torch_blocks.py", moment, arguments=("compiled",), limit=240),
    torch_leak("graph"),
    torch_leak("cache"),
    torch_leak("cycle"),
    Case("torch_ranges", "python/torch_ranges.py", ranges, environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, limit=150),
    Case("cupy", "python/cupy_pool.py", exact_if("cupy"), limit=150),
    driver("killed", killed),
    # Alone: it looks at how much memory of the card is in use.
    driver("conformance", conformance_if_there, limit=180, alone=True),
    driver("nvidia_smi", nvidia_smi, alone=True),
    driver("shared_card", shared, program="nvidia_smi", alone=True),
    # Alone: they need nearly all of the card's memory.
    driver("rescue", rescue, environment={"VRAMTRACE_ON_OOM": "rescue"}, alone=True),
    driver("rescue_without", rescue, program="rescue", environment={"VRAMTRACE_ON_OOM": "record"}, alone=True),
    out_of_memory("saved", "rescue"),
    out_of_memory("saved", "snapshot"),
    out_of_memory("lost", "rescue"),
    out_of_memory("lost", "snapshot"),
    out_of_memory("fragmented", "snapshot"),
    # The driver API.
    driver("linear", oracle="compare"),
    driver("linear_linked", oracle="compare", exit_by="_exit"),
    driver("pinned", oracle="show"),
    driver("arrays", oracle="show"),
    driver("stream_ordered", oracle="compare"),
    driver("pools", oracle="show", exit_by="_exit"),
    driver("vmm"),
    driver("ipc"),
    driver("graphs"),
    driver("graphs_linked", exit_by="_exit"),
    driver("capture"),
    driver("context", oracle="show"),
    driver("reset", oracle="show"),
    driver("trap"),
    driver("trap_exit", program="trap", exit_by="_exit"),
    driver("oom", failures),
    driver("threads", limit=90),
    driver("random", oracle="compare"),
    driver("long_run", environment={"VRAMTRACE_SIZE": "1MiB"}, history_lost=True, limit=90),
    driver("modules", oracle="compare"),
    driver("forks"),
    driver("two_devices", devices),
    driver("two_devices_reversed", devices, program="two_devices", environment={"CUDA_VISIBLE_DEVICES": "1,0"}),
    driver("storm", storm, environment={"VRAMTRACE_BUDGET": "0.5"}, alone=True),
    # The runtime API.
    runtime("runtime_mix", oracle="compare"),
    runtime("runtime_mix_shared", exit_by="_exit"),
    runtime("runtime_mix_per_thread"),
    Case("runtime_plugin", "runtime_plugin_host", exact, arguments=("{built}/runtime_plugin.so",)),
    runtime("runtime_reset", oracle="compare"),
    runtime("runtime_trap"),
    runtime("runtime_graphs"),
    runtime("runtime_graphs_shared", exit_by="_exit"),
    runtime("runtime_capture"),
    # Prebuilt clients.
    driver("cudarc", program="bin/cudarc_client"),
    # Alone.
    jax_case("jax", PREALLOCATE="false"),
    jax_case("jax_preallocated", PREALLOCATE="true", MEM_FRACTION=".10"),
    Case("reconcile", "python/torch_reconcile.py", reconcile, alone=True, limit=150),
    Case("torch_devices", "python/torch_devices.py", devices, alone=True, limit=150),
    Case("torch_ranks", "python/torch_ranks.py", ranks, alone=True, limit=150),
    Case("torch_pace", "python/torch_pace.py", pace, alone=True, limit=300),
    Case("torch_pace_large", "python/torch_pace.py", pace, arguments=("large",), alone=True, limit=300),
    Case("overhead", "runtime_overhead", overhead, alone=True),
]


def programs(cases):
    """What has to be built for them."""
    wanted = {case.program for case in cases if "/" not in case.program}
    if "runtime_plugin_host" in wanted:
        wanted.add("runtime_plugin.so")
    return sorted(wanted)
