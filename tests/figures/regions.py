"""Nets whose programs have regions, or another program for evaluation, and eager PyTorch's losses with them.

Run as `python -P regions.py` with PyTorch 2.11 and timm; writes `exported/{regions,autocast,noisy,noisy_eval}.pt2` and
`regions.json` beside this file.
"""

import importlib.util
import pathlib

import timm
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent
# Not from the path: this folder's scripts have names that packages have, too.
spec = importlib.util.spec_from_file_location("exported", HERE / "exported.py")
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
images = exported.images


class Regions(nn.Module):
    """A part without gradients, and two branches."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 10)
        self.other = nn.Linear(16, 10)

    def forward(self, x):
        hidden = self.first(x.flatten(1))
        with torch.no_grad():
            center = hidden.mean(1, keepdim=True)
            scale = hidden.std(1, keepdim=True)
        hidden = torch.relu((hidden - center) / scale)
        return torch.cond(
            x.sum() > 0.3,
            lambda hidden: self.second(hidden),
            lambda hidden: self.other(hidden) * 0.5,
            (hidden,),
        )


class Autocast(nn.Module):
    """A layer in bf16, and a layer within it that is not."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 10)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.first(x.flatten(1))
            with torch.autocast("cpu", enabled=False):
                return self.second(hidden.float())


class Noisy(nn.Module):
    """Leaves out a branch of some samples in training, which no flag of an operator switches off."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.branch = nn.Linear(16, 16)
        self.drop = timm.layers.DropPath(0.5)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        hidden = self.norm(self.first(x.flatten(1)))
        return self.head(hidden + self.drop(torch.relu(self.branch(hidden))))


def save(model, name):
    exported.save(exported.export(model, images), name, False)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    figures = {}
    for make in [Regions, Noisy]:
        name = make.__name__.lower()
        torch.manual_seed(0)
        model = make().train()
        save(model, name)
        if make is Noisy:
            save(model.eval(), "noisy_eval")
        model.train()
        figures[name] = exported.trained(model, images, 0.1)
    torch.manual_seed(0)
    model = Autocast().train()
    save(model, "autocast")
    hidden = torch.nn.functional.linear(images(4).flatten(1), model.first.weight, model.first.bias)
    figures["autocast"] = model.second(hidden.bfloat16().float()).flatten().tolist()
    exported.write(figures, "regions.json")


if __name__ == "__main__":
    main()
