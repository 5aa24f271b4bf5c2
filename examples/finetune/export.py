"""Writes `resnet.pt2`: a small ResNet for images of 8×8 pixels and five classes, with random weights.

    pip install torch==2.11.0
    python export.py
"""

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x):
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.blocks = nn.Sequential(Block(1, 16, 1), Block(16, 32, 2), Block(32, 32, 2))
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


torch.manual_seed(0)
model = ResNet(5).train()
example = torch.randn(4, 1, 8, 8)
batch = torch.export.Dim("batch", min=1)
shapes = ({0: batch},)
program = torch.export.export(model, (example,), dynamic_shapes=shapes)
torch.export.save(program, "resnet.pt2")
