"""Training steps in PyTorch, stopped at one moment: what PyTorch's own snapshot says is handed out then, and what we say.

The recorder's file is read while this program stands still, by the reader that $VERIFY_READER names, from the folder
$VERIFY_TRACES. Prints one JSON line: the blocks as (address, bytes, Python frames) of both, and both totals.
Without a reader (bare) it only trains. With the argument `compiled` the model is compiled by torch.compile, which runs it
as CUDA graphs with pools of their own, and its batches come from workers of a DataLoader, through pinned memory.
"""
import gc
import json
import os
import subprocess
import sys
from glob import glob

import torch

STEPS = 12
COMPILED = "compiled" in sys.argv


class Attention(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed = torch.nn.Sequential(torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width))
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)

    def forward(self, values):
        values = self.first(values + self.attention(values, values, values, need_weights=False)[0])
        return self.second(values + self.feed(values))


class Doubled(torch.autograd.Function):
    """Python that autograd's own threads call."""

    @staticmethod
    def forward(context, values):
        context.save_for_backward(values * 1)
        return values * 2

    @staticmethod
    def backward(context, gradient):
        kept.append(torch.empty(5000, device="cuda"))
        return gradient * 2


kept = []


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, number):
        return torch.full((16, 64, 256), 1.0 + number)


def batches():
    if COMPILED:
        loader = torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=2, pin_memory=True)
        yield from (batch.cuda(non_blocking=True) for batch in loader)
    else:
        yield from (torch.randn(16, 64, 256, device="cuda") for _ in range(STEPS))


def train(model, optimizer, step, batch):
    loss = (Doubled.apply(model(batch).clone()) - batch).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=COMPILED or step % 2 == 0)
    kept.append(loss.detach())
    kept.extend(torch.empty(size, device="cuda") for size in (100 * step + 1, 70_001))


def blocks_of(snapshot):
    found = []
    for segment in snapshot["segments"]:
        address = segment["address"]
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                frames = [[frame["name"], frame["filename"], frame["line"]] for frame in block.get("frames", [])]
                found.append([segment.get("device", 0), block.get("address", address), block["size"], frames])
            address += block["size"]
    return found


def ours():
    files = glob(os.path.join(os.environ["VERIFY_TRACES"], f"{os.getpid()}*.vrt"))
    if len(files) != 1:
        return {"problem": f"traces of this process: {files}"}
    # Not what libraries beside PyTorch have in pools of the driver.
    kinds = [f"--kind={kind}" for kind in ("device", "vmm", "torch")] if native else []
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    read = subprocess.run(
        [os.environ["VERIFY_READER"], "leaks", "--json", "--members", "--no-builtin-suppressions", *kinds, files[0]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
    )
    if read.returncode:
        return {"problem": f"the reader ended with {read.returncode}: {read.stderr.decode()[-300:]}"}
    return json.loads(read.stdout)


native = torch.cuda.memory.get_allocator_backend() == "native"
if native:
    torch.cuda.memory._record_memory_history(context="all", stacks="python")
torch.manual_seed(0)
model = torch.nn.Sequential(*[Attention(256, 4) for _ in range(2)]).cuda()
optimizer = torch.optim.AdamW(model.parameters())
if COMPILED:
    model = torch.compile(model, mode="reduce-overhead")
for step, batch in enumerate(batches()):
    torch.compiler.cudagraph_mark_step_begin()
    train(model, optimizer, step, batch)
del batch
# Graphs have pools of their own. What they run has run before: code is loaded at its first launch.
static, graph = torch.zeros(1000, device="cuda"), torch.cuda.CUDAGraph()
static * 2 + torch.ones(1000, device="cuda")
torch.cuda.synchronize()
if native:
    with torch.cuda.graph(graph):
        captured = static * 2 + torch.ones(1000, device="cuda")
    graph.replay()
gc.collect()
torch.cuda.synchronize()

if "VERIFY_READER" in os.environ:
    truth = {"allocated": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}
    if native:
        truth["blocks"] = blocks_of(torch.cuda.memory._snapshot())
    else:
        storages = {}
        for thing in gc.get_objects():
            if isinstance(thing, torch.Tensor) and thing.is_cuda and thing.untyped_storage().nbytes():
                storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        truth["storages"] = sorted(storages.items())
    print(json.dumps({"pid": os.getpid(), "moment": {"torch": torch.__version__, "native": native, "truth": truth, "ours": ours()}}))
print("trained")
