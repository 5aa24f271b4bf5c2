"""Nets as exported programs, and what two processes of PyTorch's `DistributedDataParallel` make of them in 20 steps.

Run as `python -P ranks.py FOLDER` with the packages of `requirements-pytorch.txt`. For each net, `FOLDER/<net>` gets `model.pt2`,
its data (`data.safetensors` or `data.txt`) and `trained.safetensors` with the parameters and buffers of rank zero after the last
step. Both ranks take half of each batch, as the host's do, and buffers are rank zero's before each forward pass.
"""

import os
import pathlib
import sys
import warnings

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

# Of the run files in tests/end_to_end/ranks/pytorch.rs.
STEPS, BATCH, SAMPLES, CONTEXT, WORLD = 20, 8, 40, 12, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz .,;"


class Normalized(nn.Module):
    """Its statistics are those of each rank's own samples."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class Tied(nn.Module):
    """The output layer is the embedding, and one layer is never used."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), 16)
        self.hidden = nn.Linear(16, 16)
        self.spare = nn.Linear(16, 16)
        self.output = nn.Linear(16, len(LETTERS), bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(torch.tanh(self.hidden(self.embedding(tokens))))


NETS = {"normalized": Normalized, "tied": Tied}


def images(folder):
    inputs, targets = torch.randn(SAMPLES, 1, 8, 8), torch.arange(SAMPLES) % 10
    save_file({"inputs": inputs, "targets": targets}, folder / "data.safetensors")
    return inputs, targets


def windows(folder):
    # Each letter occurs, so that its number is its place in the sorted alphabet.
    tokens = torch.cat([torch.arange(len(LETTERS)), torch.randint(len(LETTERS), (SAMPLES * CONTEXT + 1,))])
    tokens = tokens[: SAMPLES * CONTEXT + 1]
    alphabet = sorted(LETTERS)
    (folder / "data.txt").write_text("".join(alphabet[token] for token in tokens))
    return tokens[:-1].view(SAMPLES, CONTEXT), tokens[1:].view(SAMPLES, CONTEXT)


def optimizer_of(name, model):
    if name == "normalized":
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    groups = [
        {"params": [parameter for parameter in model.parameters() if parameter.dim() > 1], "weight_decay": 0.1},
        {"params": [parameter for parameter in model.parameters() if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)


def prepare(folder):
    for name, make in NETS.items():
        (folder / name).mkdir()
        torch.manual_seed(0)
        model = make().train()
        inputs, targets = images(folder / name) if name == "normalized" else windows(folder / name)
        dynamic = ({0: torch.export.Dim("batch", min=1)},)
        torch.export.save(
            torch.export.export(model, (inputs[:BATCH],), dynamic_shapes=dynamic), folder / name / "model.pt2"
        )
        start = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        save_file({key: value.detach().contiguous() for key, value in start.items()}, folder / name / "start.safetensors")
        save_file({"inputs": inputs.clone(), "targets": targets.clone()}, folder / name / "batches.safetensors")


def train(rank, folder):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2], GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=WORLD)
    for name, make in NETS.items():
        model = make().train()
        start = load_file(folder / name / "start.safetensors")
        model.load_state_dict(start, strict=False)
        data = load_file(folder / name / "batches.safetensors")
        ranks = DistributedDataParallel(model, broadcast_buffers=True, find_unused_parameters=name == "tied")
        optimizer = optimizer_of(name, model)
        for step in range(STEPS):
            first = step * BATCH % SAMPLES + rank * BATCH // WORLD
            inputs, targets = (data[key][first : first + BATCH // WORLD] for key in ("inputs", "targets"))
            loss = functional.cross_entropy(ranks(inputs).flatten(0, -2), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if rank == 0:
            trained = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            save_file(
                {key: value.detach().contiguous() for key, value in trained.items()},
                folder / name / "trained.safetensors",
            )
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    prepare(pathlib.Path(sys.argv[1]))
    torch.multiprocessing.spawn(train, (pathlib.Path(sys.argv[1]),), nprocs=WORLD)
