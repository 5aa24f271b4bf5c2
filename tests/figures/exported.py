"""Nets as exported programs, and the losses of eager PyTorch over ten steps of SGD with them.

Run as `python -P exported.py` with PyTorch 2.11, torchvision, timm and transformers; writes `exported/*` and `exported.json`
beside this file. Small nets are there as they are (`.pt2`). Of large ones, the archive is there without its weights (`.zip`):
a formula fills them, here and in `host/src/model/program/archives.rs`, with the same bits.
"""

import json
import pathlib
import warnings
import zipfile

import numpy
import timm
import torch
import torchvision
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "exported"
BATCHES = [4, 6, 4, 3]
STEPS = 10


def images(batch):
    return torch.arange(batch * 64, dtype=torch.float32).mul(0.37).sin().reshape(batch, 1, 8, 8)


def photos(batch):
    """Waves of another length in each sample."""
    places = torch.arange(3 * 64 * 64, dtype=torch.float64)
    lengths = torch.arange(batch, dtype=torch.float64).mul(0.017).add(0.011)
    return (places * lengths[:, None]).sin().float().reshape(batch, 3, 64, 64)


def tokens(batch):
    return torch.arange(batch * 12).mul(7).remainder(50).reshape(batch, 12)


def letters(batch):
    return torch.arange(batch * 12).mul(7).remainder(28).reshape(batch, 12)


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

    def __init__(self, config=None):
        super().__init__()
        small = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
        self.gpt2 = GPT2LMHeadModel(config or small)

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


class Gpt2Text(nn.Module):
    """The scores of the next of 28 characters, at each position."""

    def __init__(self):
        super().__init__()
        self.gpt2 = GPT2LMHeadModel(
            GPT2Config(vocab_size=28, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
        )

    def forward(self, tokens):
        return self.gpt2(tokens, use_cache=False).logits


class BertText(nn.Module):
    """As Gpt2Text, and it sees all positions."""

    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=28, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=12, num_labels=28,
        )
        self.bert = BertForTokenClassification(config)

    def forward(self, tokens):
        return self.bert(tokens).logits


class Functions(nn.Module):
    """Functions of PyTorch that are no modules, on sequences of 8 vectors; parameters and buffers as values."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, 8) * 0.2)
        self.gamma = nn.Parameter(torch.rand(8) + 0.5)
        self.matrix = nn.Parameter(torch.randn(8, 8) * 0.3)
        self.shift = nn.Parameter(torch.randn(8) * 0.1)
        self.register_buffer("places", torch.arange(72).sin().reshape(9, 8))
        # It moves the batch behind the positions, and joins it with the heads.
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.unmasked = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x.squeeze(1)], 1) + self.places
        x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gamma
        x = x + self.attention(x, x, x, need_weights=False)[0]
        query, key, value = (x @ self.matrix).unflatten(-1, (2, 4)).transpose(1, 2), *self.unmasked(x).chunk(2, -1)
        key, value = (torch.cat([each.unsqueeze(1)] * 2, 1) for each in (key, value))
        mask = torch.full((9, 9), float("-inf")).triu(1)
        scores = query @ key.transpose(-1, -2) / 2 + self.shift[:1] * 0.5
        y = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        y = y + nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
        y = y + torch.softmax(scores, -1) @ value
        x = nn.functional.relu6(x * 2 + 1) - nn.functional.hardtanh(x / 3) + x.clamp(max=0.4)
        x = x + y.transpose(1, 2).flatten(2) / (1.5 + x.square())
        first, others = x.split([1, 8], 1)
        one, other = others[:, ::2], others[:, 1::2]
        x = torch.addmm(self.shift, (one - other).mean((1,)), self.matrix) + first.squeeze(1) + others.unbind(1)[-1]
        return self.head(-(x.sigmoid() + 1).reciprocal())


def masked_bert():
    """Takes a mask, and the targets as `labels`; returns its own loss beside the logits."""
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=10, problem_type="single_label_classification",
    )
    return BertForSequenceClassification(config)


def masked_tokens(batch):
    lengths = torch.arange(batch).mul(5).remainder(10) + 3
    mask = (torch.arange(12) < lengths[:, None]).long()
    return {"input_ids": tokens(batch), "attention_mask": mask, "labels": targets(batch)}


class Scored(nn.Module):
    """Takes the targets, too, and returns its own loss beside the logits."""

    def __init__(self):
        super().__init__()
        self.net = Mlp()

    def forward(self, image, labels):
        logits = self.net(image)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def labeled_images(batch):
    return {"image": images(batch), "labels": targets(batch)}


class TwoTowers(nn.Module):
    """Of an image and three categories; returns two tensors."""

    def __init__(self):
        super().__init__()
        self.image = nn.Linear(64, 16)
        self.categories = nn.Embedding(7, 4)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(28, 10)

    def forward(self, image, categories):
        joined = torch.cat([torch.relu(self.image(image.flatten(1))), self.categories(categories).flatten(1)], 1)
        return {"joined": joined, "logits": self.head(self.drop(joined))}


def image_and_categories(batch):
    categories = torch.arange(batch * 3).mul(5).remainder(7).reshape(batch, 3)
    return {"image": images(batch), "categories": categories}


def strip(graph):
    """Removes the notes of the nodes of a graph, and of the regions in it."""
    for node in graph["nodes"]:
        node["metadata"] = {}
        for argument in node["inputs"]:
            if "as_graph" in argument["arg"]:
                strip(argument["arg"]["as_graph"]["graph"])


def resnet18():
    return torchvision.models.resnet18(num_classes=10)


def mobilenet_v3_small():
    return torchvision.models.mobilenet_v3_small(num_classes=10)


# The input, the learning rate, and whether the weights are those of the formula. The rates of large nets are powers of two, so
# that the product with a gradient is exact. They are small: roundings that other kernels make turn some ReLU of 300,000 on or
# off, and with a rate of 0.01 the losses differ by 0.1 some steps later.
NETS = {
    "mlp": (Mlp, images, 0.1, False),
    "cnn": (Cnn, images, 0.1, False),
    "lstm": (Lstm, images, 0.1, False),
    "resnet": (Resnet, images, 0.1, False),
    "mobilenet": (Mobilenet, images, 0.1, False),
    "vit": (Vit, images, 0.1, False),
    "gpt2": (Gpt2, tokens, 0.1, False),
    "bert": (Bert, tokens, 0.1, False),
    "functions": (Functions, images, 0.1, False),
    "resnet18": (resnet18, photos, 2**-18, True),
    "mobilenet_v3_small": (mobilenet_v3_small, photos, 2**-9, True),
}


# Nets with several inputs, by the names of their arguments: those, and whether the net gives its own loss; another one is that
# of the output `logits`.
SEVERAL = {
    "masked_bert": (masked_bert, masked_tokens, True),
    "scored": (Scored, labeled_images, True),
    "two_towers": (TwoTowers, image_and_categories, False),
}


def export(model, sample):
    batch = torch.export.Dim("batch", min=1)
    inputs = sample(4)
    if isinstance(inputs, dict):
        shapes = {name: {0: batch} for name in inputs}
        return torch.export.export(model, (), kwargs=inputs, dynamic_shapes=shapes)
    return torch.export.export(model, (inputs,), dynamic_shapes=({0: batch},))


def save(program, name, is_large):
    """Saves a program without the notes on where in which source file each node comes from; of a large one, without the
    weights. Returns the file of each weight in it."""
    path = FOLDER / f"{name}.pt2"
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    if is_large:
        path.unlink()
        path = path.with_suffix(".zip")
        left_out = ("/data/weights/weight_", "/data/sample_inputs/")
        parts = [(name, content) for name, content in parts if not any(part in name for part in left_out)]
    files = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if is_large else zipfile.ZIP_STORED) as archive:
        for name, content in parts:
            if name.endswith("models/model.json"):
                document = json.loads(content)
                strip(document["graph_module"]["graph"])
                content = json.dumps(document).encode()
            if name.endswith("model_weights_config.json"):
                files = {name: weight["path_name"] for name, weight in json.loads(content)["config"].items()}
            part = zipfile.ZipInfo(name)
            part.compress_type = archive.compression
            archive.writestr(part, content)
    return files


def weight(name, file, shape):
    """A weight of a large net: f32 of the shape. Matrices and kernels have whole numbers of 24 bits, hashed from the number
    in the name of the file and the index of the value, times a power of two: all of it is exact."""
    if len(shape) < 2:
        is_one = name.endswith(("weight", "running_var"))
        return numpy.full(shape, float(is_one), numpy.float32)
    seed = int(file.rpartition("_")[2])
    bits = numpy.arange(numpy.prod(shape), dtype=numpy.uint32) + numpy.uint32(seed * 0x9E3779B9 % 2**32)
    bits ^= bits >> 16
    bits *= numpy.uint32(0x7FEB352D)
    bits ^= bits >> 15
    bits *= numpy.uint32(0x846CA68B)
    bits ^= bits >> 16
    fan_in = int(numpy.prod(shape[1:]))
    exponent = 1 - fan_in.bit_length() // 2
    values = (bits >> 8).astype(numpy.float32) - numpy.float32(2**23)
    return (values * numpy.float32(2.0 ** (exponent - 23))).reshape(shape)


def fill(model, files):
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(weight(name, files[name], tuple(tensor.shape))))


def loss_of_output(model, sample, batch):
    return nn.functional.cross_entropy(model(sample(batch)), targets(batch))


def own_loss(model, sample, batch):
    return model(**sample(batch))["loss"]


def loss_of_logits(model, sample, batch):
    return nn.functional.cross_entropy(model(**sample(batch))["logits"], targets(batch))


def trained(model, sample, rate, loss_of=loss_of_output):
    """The losses of a model in training mode over the steps, and of an evaluation after them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    torch.manual_seed(1)
    losses = []
    for step in range(STEPS):
        batch = BATCHES[step % len(BATCHES)]
        loss = loss_of(model, sample, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        evaluated = loss_of(model, sample, 5).item()
    return {
        "rate": rate,
        "losses": losses,
        "evaluated": evaluated,
        "parameters": [key for key, _ in model.named_parameters()],
        "buffers": [key for key in model.state_dict() if key in dict(model.named_buffers())],
    }


def write(figures, name):
    capability = torch.backends.cpu.get_cpu_capability()
    text = {"pytorch": torch.__version__, "cpu_capability": capability, "steps": figures}
    (HERE / name).write_text(json.dumps(text, indent=1) + "\n")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    FOLDER.mkdir(exist_ok=True)
    figures = {}
    for name, (make, sample, rate, is_large) in NETS.items():
        torch.manual_seed(0)
        model = make().train()
        files = save(export(model, sample), name, is_large)
        if is_large:
            fill(model, files)
        figures[name] = trained(model, sample, rate)
    for name, (make, sample, gives_loss) in SEVERAL.items():
        torch.manual_seed(0)
        model = make().train()
        save(export(model, sample), name, is_large=False)
        figures[name] = trained(model, sample, 0.1, own_loss if gives_loss else loss_of_logits)
    # The original size, which is only opened: by the section `exported` of the host's benchmarks.
    save(export(Gpt2(GPT2Config()).train(), tokens), "gpt2_124m", is_large=True)
    # Language models, which are only trained and exported.
    for name, make in {"gpt2_text": Gpt2Text, "bert_text": BertText}.items():
        torch.manual_seed(0)
        save(export(make().train(), letters), name, is_large=False)
    write(figures, "exported.json")


if __name__ == "__main__":
    main()
