"""Two ranks with NCCL, each on a device of its own; the second one keeps a tensor of each step. What nvidia-smi shows for each.

Started without RANK it starts both.
"""
import json
import os
import socket
import subprocess
import sys
import time

RANKS = 2


def start():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(RANKS):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in own.items()}
        ranks.append(subprocess.Popen([sys.executable, __file__], env=environment))
    sys.exit(max(rank.wait() for rank in ranks))


if "RANK" not in os.environ:
    start()

import torch
import torch.distributed

from outside import mark, shown_by_nvidia_smi

rank = int(os.environ["RANK"])
if torch.cuda.device_count() < RANKS:
    sys.exit("there is one device")
torch.cuda.set_device(rank)
torch.distributed.init_process_group("nccl", rank=rank, world_size=RANKS)
model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(8))).cuda()
model = torch.nn.parallel.DistributedDataParallel(model, device_ids=[rank])
optimizer = torch.optim.AdamW(model.parameters())
history = []
for step in range(30):
    loss = model(torch.randn(1024, 2048, device="cuda")).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if rank == 1:
        history.append(torch.full((1 << 18,), loss.item(), device="cuda"))
parts = [torch.empty(1 << 20, device="cuda") for _ in range(RANKS)]
torch.distributed.all_gather(parts, torch.ones(1 << 20, device="cuda"))
(torch.distributed.send if rank == 0 else torch.distributed.recv)(parts[0], 1 - rank)
torch.cuda.synchronize()
torch.distributed.barrier(device_ids=[rank])
mark("reconcile")
print(
    json.dumps(
        {
            "pid": os.getpid(),
            "rank": rank,
            "shown": [shown_by_nvidia_smi(device) for device in range(RANKS)],
            "reserved": torch.cuda.memory_reserved(),
            "allocated": torch.cuda.memory_allocated(),
        }
    ),
    flush=True,
)
time.sleep(2.5)
torch.distributed.barrier(device_ids=[rank])
os._exit(0)
