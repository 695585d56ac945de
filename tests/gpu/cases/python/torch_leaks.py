"""A training script with one planted leak. Usage: torch_leaks.py graph|cache|cycle

The lines that a person would have to change are marked `guilty`; the script ends as scripts do, and its globals die then.
"""
import gc
import sys

import torch

STEPS = 400
which = sys.argv[1]
if which == "cycle":
    gc.disable()

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
losses, cache = [], {}


class Batch:
    def __init__(self, number):
        self.values = torch.randn(1024, 256, device="cuda")  # guilty: cycle
        self.number = number


def validate(batch):
    prediction = model(batch.values)  # guilty: graph
    return (prediction - batch.values).pow(2).mean()


def train(number):
    batch = Batch(number)
    if which == "cycle":
        batch.again = batch
    loss = (model(batch.values) - batch.values).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if which == "graph":
        losses.append(validate(batch))
    if which == "cache":
        cache[number] = batch.values.repeat(2, 1)  # guilty: cache
    return loss.item()


for step in range(STEPS):
    last = train(step)
print(f"loss {last:.3f}")
