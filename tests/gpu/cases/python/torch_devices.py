"""One process that trains on two devices, a thread for each; what PyTorch itself holds on each of them."""
import json
import os
import sys
import threading

import torch

if torch.cuda.device_count() < 2:
    sys.exit("there is one device")
kept = {0: [], 1: []}


def train(device):
    torch.cuda.set_device(device)
    model = torch.nn.Sequential(*(torch.nn.Linear(256 * (device + 1), 256 * (device + 1)) for _ in range(4))).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    kept[device].append((model, optimizer))
    for step in range(20):
        batch = torch.randn(512, 256 * (device + 1), device="cuda")
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        kept[device].append(torch.empty(1000 * (step + 1), device=f"cuda:{device}"))
        # Of the other device, made while this one is current.
        kept[device].append(torch.full((333 + step,), 1.0, device=f"cuda:{1 - device}"))
        kept[device].append(kept[device][-1].to("cuda"))


threads = [threading.Thread(target=train, args=(device,)) for device in (0, 1)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
torch.cuda.synchronize(0)
torch.cuda.synchronize(1)
blocks = {0: [0, 0], 1: [0, 0]}
for segment in torch.cuda.memory_snapshot():
    for block in segment["blocks"]:
        if block["state"] != "inactive":
            blocks[segment["device"]][0] += block["size"]
            blocks[segment["device"]][1] += 1
print(
    json.dumps(
        {
            "pid": os.getpid(),
            "of_device": {str(device): {"torch": of} for device, of in blocks.items()},
            "reserved": [torch.cuda.memory_reserved(device) for device in (0, 1)],
            "uuids": [f"GPU-{torch.cuda.get_device_properties(device).uuid}" for device in (0, 1)],
        }
    ),
    flush=True,
)
os._exit(0)
