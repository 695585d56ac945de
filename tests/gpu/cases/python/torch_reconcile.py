"""PyTorch with cuBLAS, cuDNN, NCCL, cuSOLVER and cuFFT in use; then the number that nvidia-smi shows for this process.

It sets a mark when all is there, and stays a while, so that somebody outside can sample that number, too.
"""
import json
import os
import tempfile
import time

import torch
import torch.distributed

from outside import mark, shown_by_nvidia_smi

device = "cuda"
kept = [torch.randn(4096, 4096, device=device)]
kept.append(kept[0] @ kept[0])
kept.append(kept[0].half() @ kept[0].half())
convolution = torch.nn.Conv2d(64, 64, 3, padding=1).to(device)
convolution(torch.randn(16, 64, 112, 112, device=device)).sum().backward()
if torch.distributed.is_nccl_available():
    with tempfile.NamedTemporaryFile() as store:
        torch.distributed.init_process_group("nccl", init_method=f"file://{store.name}.x", rank=0, world_size=1)
        torch.distributed.all_reduce(kept[0])
        torch.cuda.synchronize()
kept.append(torch.linalg.svd(torch.randn(512, 512, device=device)))
kept.append(torch.fft.fft(torch.randn(1 << 20, device=device)))
kept.extend(torch.empty(12 * 1000 * 1000, dtype=torch.uint8, device=device) for _ in range(100))
torch.cuda.synchronize()
mark("reconcile")
free, total = torch.cuda.mem_get_info()
print(
    json.dumps(
        {
            "pid": os.getpid(),
            "reconcile": {
                "shown": shown_by_nvidia_smi(),
                "device_used": total - free,
                "reserved": torch.cuda.memory_reserved(),
                "allocated": torch.cuda.memory_allocated(),
            },
        }
    ),
    flush=True,
)
time.sleep(2.5)
os._exit(0)
