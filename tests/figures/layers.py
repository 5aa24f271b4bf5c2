"""The results of PyTorch 2.11 for each layer after `torch.manual_seed(7)`: the state dict's names, and sums over initial
weights, output, gradients of weights and of the input. Written to layers.json in this folder:

    python tests/figures/layers.py

host/src/model/reference.rs compares the host's layers with these figures, under the same case names.
"""

import json
import math
import pathlib

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)

    def forward(self, x):
        return x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Attention(nn.Module):
    def __init__(self, causal):
        super().__init__()
        self.attention1 = nn.MultiheadAttention(8, 2, batch_first=True)
        self.causal = causal

    def forward(self, x):
        length = x.shape[1]
        mask = torch.triu(torch.full((length, length), -math.inf), 1) if self.causal else None
        return self.attention1(x, x, x, attn_mask=mask, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, kind, last_only=False, **options):
        super().__init__()
        self.rnn = kind(3, 5, batch_first=True, **options)
        self.last_only = last_only

    def forward(self, x):
        output = self.rnn(x)[0]
        return output[:, -1] if self.last_only else output


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Branches(nn.Module):
    def __init__(self, *branches, combine):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.combine = combine

    def forward(self, x):
        return self.combine([branch(x) for branch in self.branches])


IMAGE = [2, 4, 6, 6]
SEQUENCE = [2, 5, 8]
CASES = {
    "linear": (lambda: nn.Linear(8, 3), SEQUENCE),
    "conv1d": (lambda: nn.Conv1d(5, 6, 3, stride=2, padding=1, dilation=2), [2, 5, 8]),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), IMAGE),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGE,
    ),
    "batch_norm": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch_norm_of_vectors": (lambda: nn.BatchNorm1d(4), [6, 4]),
    "layer_norm": (lambda: nn.LayerNorm(8), SEQUENCE),
    "layer_norm_of_images": (lambda: nn.LayerNorm([4, 6, 6]), IMAGE),
    "rms_norm": (lambda: nn.RMSNorm(8), SEQUENCE),
    "group_norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "max_pool2d": (lambda: nn.MaxPool2d(3, stride=2, padding=1), IMAGE),
    "avg_pool2d": (lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), IMAGE),
    "adaptive_avg_pool2d": (lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "relu": (nn.ReLU, SEQUENCE),
    "leaky_relu": (lambda: nn.LeakyReLU(0.2), SEQUENCE),
    "elu": (lambda: nn.ELU(0.7), SEQUENCE),
    "hard_swish": (nn.Hardswish, SEQUENCE),
    "hard_sigmoid": (nn.Hardsigmoid, SEQUENCE),
    "gelu": (nn.GELU, SEQUENCE),
    "gelu_tanh": (lambda: nn.GELU("tanh"), SEQUENCE),
    "silu": (nn.SiLU, SEQUENCE),
    "tanh": (nn.Tanh, SEQUENCE),
    "sigmoid": (nn.Sigmoid, SEQUENCE),
    "softmax": (lambda: nn.Softmax(1), SEQUENCE),
    "flatten": (nn.Flatten, IMAGE),
    "reshape": (lambda: nn.Unflatten(1, (2, 2)), IMAGE),
    "permute": (lambda: Lambda(lambda x: x.permute(0, 3, 1, 2)), IMAGE),
    "attention": (lambda: Attention(False), SEQUENCE),
    "causal_attention": (lambda: Attention(True), SEQUENCE),
    "lstm": (lambda: Recurrent(nn.LSTM), [2, 5, 3]),
    "lstm_deep": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), [2, 5, 3]),
    "gru": (lambda: Recurrent(nn.GRU), [2, 5, 3]),
    "gru_last": (lambda: Recurrent(nn.GRU, last_only=True, num_layers=2), [2, 5, 3]),
    "upsample": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "upsample_bilinear": (lambda: nn.Upsample(scale_factor=(2, 3), mode="bilinear"), IMAGE),
    "residual": (Residual, IMAGE),
    "concat": (
        lambda: Branches(nn.Conv2d(4, 2, 1), nn.Identity(), combine=lambda values: torch.cat(values, 1)),
        IMAGE,
    ),
    "parallel": (
        lambda: Branches(
            nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()), combine=lambda values: values[0] * values[1]
        ),
        SEQUENCE,
    ),
    "squeeze_excite": (
        lambda: Branches(
            nn.Identity(),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Hardsigmoid()),
            combine=lambda values: values[0] * values[1],
        ),
        IMAGE,
    ),
    "sum_with_channels": (
        lambda: Branches(nn.AdaptiveAvgPool2d(1), nn.Tanh(), combine=lambda values: values[0] + values[1]),
        IMAGE,
    ),
}


def weights(shape):
    """Numbers without a pattern that an error could share, the same in every language."""
    count = math.prod(shape)
    return torch.tensor([math.sin(0.7 * i * i + i) for i in range(count)], dtype=torch.float32).reshape(shape)


def weighted_sum(tensor):
    return (tensor.double() * weights(tensor.shape).double()).sum().item()


def figures(module, x):
    sums = {"initial": [weighted_sum(parameter.detach()) for parameter in module.parameters()]}
    sums["names"] = [name for name in module.state_dict()]
    if x.is_floating_point():
        x.requires_grad_(True)
    output = module(x)
    sums["shape"] = list(output.shape[1:])
    sums["output"] = weighted_sum(output.detach())
    (output * weights(output.shape)).sum().backward()
    sums["gradients"] = [weighted_sum(parameter.grad) for parameter in module.parameters()]
    if x.is_floating_point():
        sums["input_gradient"] = weighted_sum(x.grad)
    sums["buffers"] = [weighted_sum(buffer.float()) for buffer in module.buffers()]
    return sums


def main():
    results = {}
    for name, (make, shape) in CASES.items():
        torch.manual_seed(7)
        results[name] = figures(make(), 2 * weights(shape))
    torch.manual_seed(7)
    embedding = nn.Embedding(11, 4)
    results["embedding"] = figures(embedding, torch.tensor([[3, 1, 4], [1, 5, 10]]))
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"torch": torch.__version__, "cases": results}, indent=1) + "\n")
    print(path, len(results))


main()
