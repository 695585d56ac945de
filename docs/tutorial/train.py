"""Trains a small language model on made-up text, and validates after every step. It needs more memory the longer it runs."""

import torch
from torch import nn

STEPS, BATCH, LENGTH, WORDS, WIDTH = 300, 16, 128, 4096, 256


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, text):
        return self.head(self.layers(self.words(text)))


def loss_of(model, text):
    predicted = model(text[:, :-1])
    return nn.functional.cross_entropy(predicted.flatten(0, 1), text[:, 1:].flatten())


def validate(model, text):
    with torch.cuda.nvtx.range("validate"):
        return loss_of(model, text[:2])


def main():
    torch.manual_seed(0)
    model = Model().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    history = []
    for step in range(STEPS):
        text = torch.randint(WORDS, (BATCH, LENGTH), device="cuda")
        with torch.cuda.nvtx.range("step"):
            loss = loss_of(model, text)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        history.append(validate(model, text))
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}, {torch.cuda.memory_allocated() / 2**20:,.0f} MiB allocated")
    print(f"best validation loss: {min(float(loss) for loss in history):.3f}")


main()
