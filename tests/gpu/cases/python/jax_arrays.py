"""JAX with its own allocator. Truth: what that allocator says it took from the device (`pool_bytes`)
and handed out (`bytes_in_use`), and how much the card's used memory grew (nothing else may run)."""
import json
import os
import subprocess


def used():
    """Bytes in use on the first card, by all processes; None where nvidia-smi does not say."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) << 20
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


before = used()

import jax  # noqa: E402  (not before the measurement)
import jax.numpy as jnp  # noqa: E402

kept = [jnp.ones((1000, 1000 + i), dtype=jnp.float32) for i in range(12)]
step = jax.jit(lambda a: (a @ a.T).sum() + jnp.tanh(a).mean())
print(f"sum {float(step(kept[0])):.0f}")
del kept[3]
jax.block_until_ready(kept)
stats = jax.local_devices()[0].memory_stats() or {}
after = used()
truth = {
    "in_use": stats.get("bytes_in_use"),
    "pool": stats.get("pool_bytes"),
    "arrays": sum(array.nbytes for array in kept),
    "grown": None if before is None or after is None else after - before,
}
print(json.dumps({"pid": os.getpid(), "jax": truth}), flush=True)
# JAX frees everything in an exit handler, which is before the interpreter's end.
os._exit(0)
