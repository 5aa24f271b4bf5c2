"""The models and data of the run files in this folder, as a PyTorch user writes them."""

import dataclasses
import gzip
import pathlib
import tomllib

import numpy
import torch
from torch import nn
from torch.nn import functional

FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass
class Workload:
    model: nn.Module
    # All samples of an epoch, in memory.
    inputs: torch.Tensor
    targets: torch.Tensor
    batch_size: int
    epochs: int

    @property
    def steps(self):
        return self.epochs * -(-len(self.inputs) // self.batch_size)

    def loss(self, outputs, targets):
        # Classes are in the last dimension.
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def optimizer(self):
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)


def load(name):
    """The workload of a run file, with as many epochs as its steps need."""
    plan = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    steps, batch_size = plan["train"]["steps"], plan["train"]["batch_size"]
    path = FOLDER / plan["data"]["path"]
    torch.manual_seed(plan["run"]["seed"])
    if plan["data"]["format"] == "text":
        # One epoch: as many windows of the text as there are in the steps.
        inputs, targets, tokens = windows(path, plan["data"]["context"], steps * batch_size)
        model = {"transformer": Transformer, "gru": Gru, "exported-gpt2": Gpt2}[name](tokens, plan["data"]["context"])
        return Workload(model, inputs, targets, batch_size, epochs=1)
    inputs, targets = digits(path, plan["data"]["splits"]["val"]["fraction"])
    epochs = steps // -(-len(inputs) // batch_size)
    models = {"mlp": mlp, "cnn": cnn, "exported-mlp": mlp, "exported-resnet18": Resnet18}
    return Workload(models[name](), inputs, targets, batch_size, epochs)


def digits(path, held_out):
    """As many samples as the host trains on; which ones does not affect their time."""
    table = numpy.loadtxt(path, delimiter=",", dtype=numpy.float32)
    table = table[int(len(table) * held_out) :]
    features = table[:, :-1]
    features = (features - features.mean()) / features.std()
    return torch.from_numpy(features).view(-1, 1, 8, 8), torch.from_numpy(table[:, -1]).long()


def windows(path, context, count):
    text = gzip.decompress(path.read_bytes()).decode()
    tokens = {character: token for token, character in enumerate(sorted(set(text)))}
    encoded = torch.tensor([tokens[character] for character in text[: count * context + 1]])
    return encoded[:-1].view(count, context), encoded[1:].view(count, context), len(tokens)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection, self.out_projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, values):
        values = values + self.attend(self.norm1(values))
        return values + self.mlp(self.norm2(values))

    def attend(self, values):
        batch, length, width = values.shape
        query, key, value = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.projection(values).split(width, dim=2)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out_projection(attended.transpose(1, 2).reshape(batch, length, width))


class Gru(nn.Module):
    def __init__(self, tokens, _):
        super().__init__()
        self.embedding = nn.Embedding(tokens, 128)
        self.gru = nn.GRU(128, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, tokens)

    def forward(self, tokens):
        return self.head(self.gru(self.embedding(tokens))[0])


class Transformer(nn.Module):
    def __init__(self, tokens, context, width=128, heads=4, layers=4):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.position = nn.Embedding(context, width)
        self.register_buffer("places", torch.arange(context))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)

    def forward(self, inputs):
        return self.head(self.norm(self.blocks(self.embedding(inputs) + self.position(self.places))))


class Resnet18(nn.Module):
    """On larger digits, in gray."""

    def __init__(self):
        import torchvision

        super().__init__()
        self.net = torchvision.models.resnet18(num_classes=10)

    def forward(self, digits):
        return self.net(functional.interpolate(digits, scale_factor=8).expand(-1, 3, -1, -1))


class Gpt2(nn.Module):
    def __init__(self, tokens, context):
        import transformers

        super().__init__()
        config = transformers.GPT2Config(
            vocab_size=tokens, n_positions=context, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
        self.gpt2 = transformers.GPT2LMHeadModel(config)

    def forward(self, tokens):
        return self.gpt2(tokens, use_cache=False).logits
