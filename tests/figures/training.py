"""The results of PyTorch 2.11 for 50 steps with six small nets: every step's loss and the weights at the end. Written to
training.json in this folder:

    python tests/figures/training.py

host/src/train/reference.rs compares the host's loop with these figures; there, the nets are layers.
"""

import json
import math
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

STEPS = 50
BATCH = 12
CLASSES = 4


class Sum(nn.Module):
    """A residual block."""

    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.body(x)


class CausalAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        length = x.shape[1]
        mask = torch.triu(torch.full((length, length), -math.inf), 1)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


class Last(nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x):
        return self.recurrent(x)[0][:, -1]


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES)), [8]),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, CLASSES),
        ),
        [2, 6, 6],
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.Conv2d(4, 8, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        ),
        [2, 6, 6],
    ),
    "attention": (
        lambda: nn.Sequential(
            Sum(nn.LayerNorm(8), CausalAttention()),
            Sum(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)),
            nn.Flatten(),
            nn.Linear(40, CLASSES),
        ),
        [5, 8],
    ),
    "lstm": (lambda: nn.Sequential(Last(nn.LSTM(3, 6, batch_first=True)), nn.Linear(6, CLASSES)), [5, 3]),
    "gru": (lambda: nn.Sequential(Last(nn.GRU(3, 6, batch_first=True)), nn.Linear(6, CLASSES)), [5, 3]),
}


def numbers(step, count):
    """Numbers without a pattern that an error could share, the same in every language."""
    return [math.sin(0.7 * i * i + i + step) for i in range(count)]


def main():
    torch.set_num_threads(1)
    results = {}
    for name, (make, shape) in NETS.items():
        torch.manual_seed(7)
        net = make()
        # Not Adam: the gradients of a bias before a norm, and of a key's bias, are rounding errors, which Adam turns
        # into steps of full length.
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, fused=True)
        losses = []
        for step in range(STEPS):
            inputs = torch.tensor(numbers(step, BATCH * math.prod(shape)), dtype=torch.float32).reshape([BATCH, *shape])
            targets = torch.tensor([(index * index + step) % CLASSES for index in range(BATCH)])
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        state = [value.float().flatten().tolist() for value in [*net.parameters(), *net.buffers()]]
        results[name] = {"losses": losses, "state": state}
        print(name, losses[0], losses[-1])
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"torch": torch.__version__, "nets": results}) + "\n")


main()
