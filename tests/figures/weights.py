"""Small files of weights as PyTorch, safetensors and NumPy write them, and files that no reader may open.

Run as `python -P weights.py` with PyTorch 2.11, safetensors and NumPy; writes `weights/` and `weights.json` beside this file:
dtype, shape, sum and first elements of each tensor of the files that are read.
"""

import argparse
import collections
import json
import os
import pathlib

import numpy
import torch
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "weights"
FIRST = 4


class Net(nn.Module):
    """A module whose state dict has parameters, buffers, a counter, and one tensor under two names."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embedding.weight


class Hostile:
    """Pickles as a call of `os.system`."""

    def __reduce__(self):
        return os.system, ("touch hostile-pickle-was-executed",)


def figures(tensors):
    told = {}
    for name, tensor in tensors.items():
        tensor = torch.as_tensor(tensor).detach()
        numbers = tensor.to(torch.float64).reshape(-1)
        told[name] = {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "sum": numbers.sum().item(),
            "first": numbers[:FIRST].tolist(),
        }
    return told


def views():
    """Views of one storage, other dtypes, and tensors without elements or dimensions."""
    base = torch.arange(24, dtype=torch.float32).mul(0.5).reshape(4, 6)
    return {
        "base": base,
        "transposed": base.t(),
        "column": base[:, 2],
        "part": base[1:3, ::2],
        "repeated": base[0, :3].expand(2, 3),
        "half": base[0].half(),
        "brain": base[1].bfloat16(),
        "double": base[2].double().div(3),
        "counter": torch.tensor(41),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 3),
    }


def main():
    torch.manual_seed(7)
    FOLDER.mkdir(exist_ok=True)
    told = {}

    def write(name, value, tensors, **options):
        torch.save(value, FOLDER / name, **options)
        if tensors is not None:
            told[name] = figures(tensors)

    net = Net()
    state = net.state_dict()
    write("state_dict.pt", state, state)
    write("views.pt", views(), views())
    for protocol in [3, 4, 5]:
        write(f"protocol{protocol}.pt", state, state, pickle_protocol=protocol)

    optimizer = torch.optim.AdamW(net.parameters())
    net.conv(torch.ones(1, 1, 3, 3)).sum().backward()
    optimizer.step()
    state = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in net.state_dict().items())
    about = {
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": 0.25,
        "step": 2**40,
        "large": 2**70,
        "shape": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "tags": {"a", "b"},
        "fixed": frozenset([1]),
        "bytes": b"\x00\x01",
        "array": bytearray(b"ab"),
        "complex": 1 + 2j,
        "counts": collections.Counter("aab"),
        "nested": {"list": [1, [2.5, None, True]], "tuple": (1, 2, 3, 4)},
    }
    write("training.pt", {"model": state, **about}, state)
    write("training4.pt", {"model": state, **about}, state, pickle_protocol=4)
    write("lightning.ckpt", {"epoch": 1, "pytorch-lightning_version": "2.5", "state_dict": state}, state)
    write("other_keys.pt", {"ema": state, "student": state, "epoch": 1}, None)

    told_of = nn.Parameter(torch.arange(3.0))
    told_of.note = "an attribute"
    tensor = torch.arange(2.0)
    tensor.note = "another"
    parameters = {"parameter": nn.Parameter(torch.ones(2, 2)), "with_state": told_of, "attribute": tensor}
    write("parameters.pt", parameters, parameters)
    eighths = {"weight": torch.ones(2).to(torch.float8_e4m3fn), "wide": torch.ones(2, dtype=torch.uint16)}
    write("float8.pt", eighths, eighths)

    # A net as somebody else trained it: in parallel, with names of its own, and for 100 classes.
    backbone = {"weight": torch.randn(16, 64) / 8, "bias": torch.full((16,), 0.125)}
    head = {"weight": torch.randn(100, 16), "bias": torch.zeros(100)}
    digits = {f"module.backbone.0.{name}": tensor for name, tensor in backbone.items()}
    digits |= {f"module.head.{name}": tensor for name, tensor in head.items()}
    write("digits.pt", {"state_dict": digits, "epoch": 90}, digits)

    write("whole.pt", nn.Sequential(nn.Linear(2, 2)), None)
    write("legacy.pt", net.state_dict(), None, _use_new_zipfile_serialization=False)
    write("hostile.pt", {"weight": torch.ones(2), "extra": Hostile()}, None)
    write("namespace.pt", {"model": state, "args": argparse.Namespace(lr=0.1)}, None)
    write("tensor.pt", torch.ones(2), None)

    shards = FOLDER / "shards"
    shards.mkdir(exist_ok=True)
    first = {"fc1.weight": torch.randn(2, 3), "fc1.bias": torch.randn(2)}
    second = {"fc2.weight": torch.randn(4, 2).bfloat16(), "fc2.bias": torch.randn(4).half()}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {}
    for name, tensors in zip(names, [first, second]):
        save_file(tensors, shards / name, metadata={"format": "pt"})
        weight_map |= {tensor: name for tensor in tensors}
    index = {"metadata": {"total_size": 64}, "weight_map": weight_map}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    told["shards"] = figures(first | second)

    arrays = {name: tensor.numpy() for name, tensor in first.items()}
    arrays |= {"counter": numpy.array(41), "double": numpy.arange(3) / 3}
    numpy.savez(FOLDER / "arrays.npz", **arrays)
    numpy.savez_compressed(FOLDER / "compressed.npz", **arrays)
    told["arrays.npz"] = told["compressed.npz"] = figures(arrays)

    (HERE / "weights.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
