"""A few training steps in PyTorch, with tensors that a module global keeps.

Truth of the caching allocator: what it reserved from the driver, and the blocks that it handed out.
Of the cudaMallocAsync backend: every storage that is alive, as the garbage collector sees them.
"""
import gc
import json
import os

import torch

kept = []


def train():
    torch.manual_seed(0)
    width = 512
    model = torch.nn.Sequential(
        torch.nn.Linear(width, 4 * width), torch.nn.ReLU(), torch.nn.Linear(4 * width, width)
    ).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(8):
        batch = torch.randn(64, width, device="cuda")
        loss = (model(batch) - batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        kept.append(loss.detach().clone())
        kept.append(torch.empty(100_003 * (step + 1), dtype=torch.uint8, device="cuda"))
    kept.extend((model, optimizer))
    return float(kept[-4])


def storages():
    sizes = {}
    for found in gc.get_objects():
        if isinstance(found, torch.Tensor) and found.is_cuda:
            storage = found.untyped_storage()
            if storage.nbytes():
                sizes[storage.data_ptr()] = storage.nbytes()
    return list(sizes.values())


print(f"loss {train():.3f}")
gc.collect()
torch.cuda.synchronize()
torch._C._cuda_clearCublasWorkspaces()
torch.cuda.synchronize()
sizes = storages()
if torch.cuda.memory.get_allocator_backend() == "native":
    segments = torch.cuda.memory_snapshot()
    truth = {
        "segments": len(segments),
        "reserved": sum(segment["total_size"] for segment in segments),
        "blocks": sum(block["state"] != "inactive" for segment in segments for block in segment["blocks"]),
        "allocated": torch.cuda.memory_allocated(),
        "storages": sum(sizes),
    }
    assert truth["reserved"] == torch.cuda.memory_reserved(), (truth, torch.cuda.memory_reserved())
    print(json.dumps({"pid": os.getpid(), "torch": truth}))
else:
    live = [{"kind": "async", "bytes": sum(sizes), "count": len(sizes)}]
    print(json.dumps({"pid": os.getpid(), "live": live, "only": ["async"], "imports": 0}))
