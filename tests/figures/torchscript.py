"""Writes torchscript.pt: a small convolutional net as a TorchScript module, for tests of `[model] torchscript`.

    pip install torch==2.11.0
    python tests/figures/torchscript.py
"""

import io
import zipfile
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    """Batch norm has buffers, dropout draws random numbers; `calls` is the module's own buffer, which its forward counts up."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(0.25)
        self.head = nn.Linear(8 * 4 * 4, 10)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        # Not trained, but part of the state.
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        hidden = self.features(images * self.scale).flatten(1)
        return self.head(self.dropout(hidden))


torch.manual_seed(0)
written = io.BytesIO()
torch.jit.save(torch.jit.script(Net()), written)
# Without the debug records, which hold the paths of the machine that wrote them.
with zipfile.ZipFile(written) as whole, zipfile.ZipFile(Path(__file__).with_name("torchscript.pt"), "w") as kept:
    for record in whole.infolist():
        if not record.filename.endswith(".debug_pkl"):
            kept.writestr(zipfile.ZipInfo(record.filename), whole.read(record))
