"""PyTorch out of memory, and then nothing more until it is killed. Usage: torch_oom.py saved | lost | fragmented

saved: a pool of cudaMallocAsync beside PyTorch keeps what PyTorch then lacks. lost: tensors do. fragmented: every other block of
a limited cache is freed, and no piece is large enough. Prints one JSON line: what PyTorch itself says.
"""
import ctypes
import json
import os
import sys
import time

import torch

MIB = 1 << 20
MODE = sys.argv[1]


def hoard(size):
    """As a library does that uses cudaMallocAsync with a high release threshold."""
    runtime = ctypes.CDLL(f"libcudart.so.{torch.version.cuda.split('.')[0]}")
    pool, block, keep = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64(2**64 - 1)
    for result in (
        runtime.cudaDeviceGetDefaultMemPool(ctypes.byref(pool), 0),
        runtime.cudaMemPoolSetAttribute(pool, 4, ctypes.byref(keep)),
        runtime.cudaMallocAsync(ctypes.byref(block), ctypes.c_size_t(size), None),
        runtime.cudaFreeAsync(block, None),
    ):
        assert result == 0, result


def ask(size):
    """The tensor, or what the exception says."""
    try:
        return torch.empty(size, dtype=torch.uint8, device="cuda"), None
    except torch.cuda.OutOfMemoryError as error:
        return None, str(error)


kept = [torch.zeros(1000, device="cuda")]
torch.cuda.synchronize()
free, total = torch.cuda.mem_get_info()
if MODE == "fragmented":
    torch.cuda.set_per_process_memory_fraction(2048 * MIB / total)
    blocks, message = [], None
    while message is None:
        tensor, message = ask(8 * MIB)
        blocks.append(tensor)
    kept += blocks[:-1:2]
    tensor = blocks = None
    wanted = 512 * MIB
else:
    if MODE == "saved":
        hoard(free // 8 * 5)
    else:
        kept.append(torch.empty(free // 8 * 5, dtype=torch.uint8, device="cuda"))
    wanted = free // 2
tensor, message = ask(wanted)
stats = torch.cuda.memory_stats()
segments = [
    [segment["address"], segment["total_size"], segment["allocated_size"]] for segment in torch.cuda.memory_snapshot()
]
print(
    json.dumps(
        {
            "pid": os.getpid(),
            "wanted": wanted,
            "message": message,
            "allocated": stats["allocated_bytes.all.current"],
            "reserved": stats["reserved_bytes.all.current"],
            "ooms": stats["num_ooms"],
            "segments": sorted(segments),
        }
    ),
    flush=True,
)
while True:
    time.sleep(1)
