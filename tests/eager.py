"""Nets as exported programs, and what eager PyTorch makes of them in 30 steps, which the host must equal to the last bit.

Run as `python -P eager.py FOLDER` with the packages of `requirements-pytorch.txt`. For each net, `FOLDER/<net>` gets
`model.pt2`, its data (`data.safetensors` with `inputs`, `targets` and perhaps `mask`, or `data.txt`), `losses.json` with the loss of each step,
and `trained.safetensors` with the parameters and buffers after the last.

Eager PyTorch trains as the host does with `optimizer = { type = "adamw" }`, `shuffle = false` and `threads = 1`: on one thread,
with deterministic algorithms, and without decay of biases and norms. The host seeds the default generator with the run's seed.
"""

import json
import pathlib
import sys
import warnings

import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

# Of the run files in tests/end_to_end/eager.rs.
SEED, STEPS, BATCH, CONTEXT = 7, 30, 4, 12
# The last batch of an epoch has two samples.
SAMPLES = 50
LETTERS = "abcdefghijklmnopqrstuvwxyz .,;"


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.25)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.head(self.drop(x).mean((2, 3)))


class Recurrent(nn.Module):
    """Rows of an image one after the other."""

    def __init__(self, cells):
        super().__init__()
        self.cells = cells(8, 16, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.cells(x.squeeze(1))[0][:, -1])


class Logits(nn.Module):
    """A language model of transformers, of which only the logits are returned."""

    def __init__(self, model, **options):
        super().__init__()
        self.model, self.options = model, options

    def forward(self, tokens):
        return self.model(tokens, **self.options).logits


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def vit():
    return timm.models.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4, proj_drop_rate=0.1,
        attn_drop_rate=0.1,
    )


def gpt2():
    # Its output layer is tied to the embedding of the tokens.
    config = GPT2Config(
        vocab_size=len(LETTERS), n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return Logits(GPT2LMHeadModel(config), use_cache=False)


def bert():
    config = BertConfig(
        vocab_size=len(LETTERS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=CONTEXT,
    )
    return Logits(BertForMaskedLM(config))


class Classifier(nn.Module):
    """A BERT that takes a mask and the targets, and gives its own loss."""

    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=len(LETTERS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=CONTEXT, num_labels=10, problem_type="single_label_classification",
        )
        self.model = BertForSequenceClassification(config)

    def forward(self, inputs, mask, targets):
        returned = self.model(input_ids=inputs, attention_mask=mask, labels=targets)
        return {"loss": returned.loss, "logits": returned.logits}


NETS = {
    # Name, model, and the shape of a sample; without one, windows of a text.
    "mlp": (mlp, (1, 8, 8)),
    "cnn": (Cnn, (1, 8, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), (1, 8, 8)),
    "gru": (lambda: Recurrent(nn.GRU), (1, 8, 8)),
    "vit": (vit, (1, 8, 8)),
    "gpt2": (gpt2, None),
    "bert": (bert, None),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), (3, 64, 64)),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), (3, 64, 64)),
    # Dropping whole blocks is no dropout, and the host refuses it.
    "efficientnet_b0": (
        lambda: torchvision.models.efficientnet_b0(num_classes=10, stochastic_depth_prob=0.0),
        (3, 64, 64),
    ),
}


def images(shape, folder):
    inputs = torch.randn(SAMPLES, *shape)
    targets = torch.arange(SAMPLES) % 10
    save_file({"inputs": inputs, "targets": targets}, folder / "data.safetensors")
    return inputs, targets


def masked(folder):
    lengths = torch.randint(3, CONTEXT + 1, (SAMPLES,))
    inputs = torch.randint(len(LETTERS), (SAMPLES, CONTEXT))
    mask = (torch.arange(CONTEXT) < lengths[:, None]).long()
    targets = torch.arange(SAMPLES) % 10
    save_file({"inputs": inputs, "mask": mask, "targets": targets}, folder / "data.safetensors")
    return {"inputs": inputs, "mask": mask, "targets": targets}


def windows(folder):
    # Each letter occurs, so that its number is its place in the sorted alphabet.
    tokens = torch.cat([torch.arange(len(LETTERS)), torch.randint(len(LETTERS), (SAMPLES * CONTEXT + 1,))])
    tokens = tokens[: SAMPLES * CONTEXT + 1]
    alphabet = sorted(LETTERS)
    (folder / "data.txt").write_text("".join(alphabet[token] for token in tokens))
    return tokens[:-1].view(SAMPLES, CONTEXT), tokens[1:].view(SAMPLES, CONTEXT)


def loss_of_output(model, inputs, targets):
    return functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def own_loss(model, inputs, mask, targets):
    return model(inputs, mask, targets)["loss"]


def train(model, tensors, loss_of):
    """The losses of the steps."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": 0.01},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)
    torch.manual_seed(SEED)
    losses = []
    while True:
        for batch in zip(*(tensor.split(BATCH) for tensor in tensors)):
            loss = loss_of(model, *batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == STEPS:
                return losses


def write(folder, model, losses):
    (folder / "losses.json").write_text(json.dumps(losses))
    # Tied parameters once, and of the buffers only those that are saved.
    saved = model.state_dict()
    named = [*model.named_parameters(), *model.named_buffers()]
    trained = {name: tensor.detach().contiguous() for name, tensor in named if name in saved}
    save_file(trained, folder / "trained.safetensors")


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, (make, shape) in NETS.items():
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir()
        torch.manual_seed(0)
        model = make().train()
        inputs, targets = images(shape, folder) if shape else windows(folder)
        dynamic = ({0: torch.export.Dim("batch", min=1)},)
        torch.export.save(torch.export.export(model, (inputs[:BATCH],), dynamic_shapes=dynamic), folder / "model.pt2")
        write(folder, model, train(model, (inputs, targets), loss_of_output))
    folder = pathlib.Path(sys.argv[1]) / "bert_classifier"
    folder.mkdir()
    torch.manual_seed(0)
    model = Classifier().train()
    tensors = masked(folder)
    example = {name: tensor[:BATCH] for name, tensor in tensors.items()}
    dynamic = {name: {0: torch.export.Dim("batch", min=1)} for name in example}
    torch.export.save(torch.export.export(model, (), kwargs=example, dynamic_shapes=dynamic), folder / "model.pt2")
    write(folder, model, train(model, tuple(tensors.values()), own_loss))


if __name__ == "__main__":
    main()
