"""CuPy's memory pool: the driver sees what the pool took, which the pool itself knows."""
import json
import os

import cupy

pool = cupy.get_default_memory_pool()
kept = [cupy.zeros(1000 * n + 7, dtype=cupy.float32) for n in range(1, 40)]
del kept[::3]
kept += [cupy.zeros((300, n), dtype=cupy.uint8) for n in (1, 100, 10_000)]
kept[0] = kept[1].copy()
cupy.cuda.runtime.deviceSynchronize()
assert pool.total_bytes() >= pool.used_bytes() > 0
live = [{"kind": "device", "bytes": pool.total_bytes(), "count": None}]
print(json.dumps({"pid": os.getpid(), "live": live, "only": ["device"], "imports": 0}))
