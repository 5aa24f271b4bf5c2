"""Small nets as exported programs, and the losses of eager PyTorch over ten steps of SGD with them.

Run as `python -P exported.py` with PyTorch 2.11, torchvision, timm and transformers; writes `exported/*.pt2` and `exported.json` beside
this file.
"""

import json
import pathlib
import warnings
import zipfile

import timm
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "exported"
BATCHES = [4, 6, 4, 3]
STEPS = 10


def images(batch):
    return torch.arange(batch * 64, dtype=torch.float32).mul(0.37).sin().reshape(batch, 1, 8, 8)


def tokens(batch):
    return torch.arange(batch * 12).mul(7).remainder(50).reshape(batch, 12)


def targets(batch):
    return torch.arange(batch).remainder(10)


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d(0.25)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.head(self.drop(x).mean((2, 3)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(8, 8, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.cells(x.squeeze(1))[0][:, -1])


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.vit = timm.models.VisionTransformer(
            img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=16, depth=2, num_heads=2, proj_drop_rate=0.1
        )

    def forward(self, x):
        return self.vit(x)


class Resnet(nn.Module):
    """A small one of the blocks of ResNet-18, whose sums and activations are in place."""

    def __init__(self):
        super().__init__()
        block = timm.models.resnet.BasicBlock
        shortcut = timm.models.resnet.downsample_conv(4, 8, 1, stride=2)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(block(4, 4), block(4, 8, stride=2, downsample=shortcut))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.mean(self.layers(self.pool(self.stem(x)))).flatten(1))


class Mobilenet(nn.Module):
    """The blocks of MobileNetV3 (Howard et al. 2019): depthwise convolutions, squeeze and excitation, hard functions."""

    def __init__(self):
        super().__init__()
        setting = torchvision.models.mobilenetv3.InvertedResidualConfig
        # Channels, kernel, expanded channels, output channels, squeeze and excitation, activation, stride, dilation, width.
        blocks = [setting(8, 3, 8, 8, True, "RE", 1, 1, 1.0), setting(8, 3, 16, 8, True, "HS", 2, 1, 1.0)]
        self.net = torchvision.models.MobileNetV3(blocks, last_channel=16, num_classes=10)
        self.net.features[0][0] = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)

    def forward(self, x):
        return self.net(x)


class Gpt2(nn.Module):
    """Its output layer is tied to the embedding of the tokens."""

    def __init__(self):
        super().__init__()
        config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
        self.gpt2 = GPT2LMHeadModel(config)

    def forward(self, tokens):
        return self.gpt2(tokens, use_cache=False).logits[:, -1]


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, num_labels=10,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, tokens):
        return self.bert(tokens).logits


def strip(graph):
    """Removes the notes of the nodes of a graph, and of the regions in it."""
    for node in graph["nodes"]:
        node["metadata"] = {}
        for argument in node["inputs"]:
            if "as_graph" in argument["arg"]:
                strip(argument["arg"]["as_graph"]["graph"])


def save(program, path):
    """Saves a program without the notes on where in which source file each node comes from."""
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        parts = [(part, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for part, content in parts:
            if part.filename.endswith("models/model.json"):
                document = json.loads(content)
                strip(document["graph_module"]["graph"])
                content = json.dumps(document).encode()
            archive.writestr(zipfile.ZipInfo(part.filename), content)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    FOLDER.mkdir(exist_ok=True)
    figures = {}
    of_images = [Mlp, Cnn, Lstm, Resnet, Mobilenet, Vit]
    nets = [(make, images) for make in of_images] + [(make, tokens) for make in [Gpt2, Bert]]
    for make, sample in nets:
        name = make.__name__.lower()
        torch.manual_seed(0)
        model = make().train()
        program = torch.export.export(model, (sample(4),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        save(program, FOLDER / f"{name}.pt2")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        losses = []
        for step in range(STEPS):
            batch = BATCHES[step % len(BATCHES)]
            loss = nn.functional.cross_entropy(model(sample(batch)), targets(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            evaluated = nn.functional.cross_entropy(model(sample(5)), targets(5)).item()
        figures[name] = {
            "losses": losses,
            "evaluated": evaluated,
            "parameters": [key for key, _ in model.named_parameters()],
            "buffers": [key for key in model.state_dict() if key in dict(model.named_buffers())],
        }
    capability = torch.backends.cpu.get_cpu_capability()
    text = {"pytorch": torch.__version__, "cpu_capability": capability, "steps": figures}
    (HERE / "exported.json").write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
