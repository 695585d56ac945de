"""Measures, each time that it is told to by a line on its input; answers one JSON number, nanoseconds.

pair: one torch.empty(1024) and its end. history: the same while PyTorch records its own history with Python stacks.
step: one training step: of four small transformer layers, which a processor is busy with all the time, or, with the
argument `large`, of twelve of GPT-2's size, which the GPU is busy with.
"""
import json
import sys
import time

import torch

PAIRS = 20_000
LARGE = sys.argv[1:] == ["large"]
LAYERS, WIDTH, HEADS, INNER = (12, 768, 12, 3072) if LARGE else (4, 256, 4, 512)
SHAPE, STEPS = ((8, 512), 5) if LARGE else ((8, 64), 20)
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, batch_first=True, dropout=0.0)
model = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).cuda()
optimizer = torch.optim.AdamW(model.parameters())
batch = torch.randn(*SHAPE, WIDTH, device="cuda")


def pair():
    began = time.perf_counter_ns()
    for _ in range(PAIRS):
        torch.empty(1024, device="cuda")
    return (time.perf_counter_ns() - began) / PAIRS


def history():
    torch.cuda.memory._record_memory_history(stacks="python")
    try:
        return pair()
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def step():
    torch.cuda.synchronize()
    began = time.perf_counter_ns()
    for _ in range(STEPS):
        with torch.autocast("cuda", torch.bfloat16, enabled=LARGE):
            loss = (model(batch) - batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - began) / STEPS


ways = {"pair": pair, "history": history, "step": step}
for way in ways.values():
    way()
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    print(json.dumps(ways[line.strip()]()), flush=True)
