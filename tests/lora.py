"""Nets with adapters of PEFT, and what eager PyTorch makes of them in 30 steps, which the host must equal but for rounding.

`python -P lora.py FOLDER` writes for each net, to `FOLDER/<net>`, `model.pt2` without adapters, its state dict (`base.pt`), its
data, `start` with the adapters as PEFT makes them, and `losses.json` with the loss of each step. `python -P lora.py FOLDER --load`
loads what the host wrote after the same steps: the files of PEFT into the model of before, and the merged weights; it writes
`loaded.json` with the loss over all samples of both, and with their outputs.
"""

import json
import pathlib
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from eager import BATCH, Cnn, bert, gpt2, images, loss_of_output, train, vit, windows

RANK, ALPHA = 4, 10


class Attention(nn.Module):
    """Rows of an image, which PyTorch's own multi-head attention reads."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = x.squeeze(1)
        return self.head(self.attn(x, x, x, need_weights=False)[0].flatten(1))


NETS = {
    # Name, model, the shape of a sample, the adapted modules, and those that are trained themselves, as tests/end_to_end/lora.rs
    # names them.
    "vit": (vit, (1, 8, 8), r".*\.(qkv|fc1)", ["head"]),
    "bert": (bert, None, r".*\.(query|value)", None),
    "gpt2": (gpt2, None, r".*\.c_attn", None),
    "cnn": (Cnn, (1, 8, 8), "conv", ["head"]),
    "attention": (Attention, (1, 8, 8), "attn", ["head"]),
}


def net(name, folder):
    """The model as it is before training, and the data."""
    make, shape, _, _ = NETS[name]
    torch.manual_seed(0)
    model = make().train()
    inputs, targets = images(shape, folder) if shape else windows(folder)
    return model, inputs, targets


def begin(folder):
    for name, (_, _, targets, saved) in NETS.items():
        own = folder / name
        own.mkdir()
        model, inputs, classes = net(name, own)
        dynamic = ({0: torch.export.Dim("batch", min=1)},)
        torch.export.save(torch.export.export(model, (inputs[:BATCH],), dynamic_shapes=dynamic), own / "model.pt2")
        torch.save(model.state_dict(), own / "base.pt")
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, modules_to_save=saved)
        torch.manual_seed(1)
        adapted = get_peft_model(model, config)
        adapted.save_pretrained(own / "start")
        # Statistics of the base that training would move are no part of PEFT's files; the host keeps them.
        for module in adapted.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        # PEFT adds what this one makes twice, and the host does without it.
        for parameter_name, parameter in adapted.named_parameters():
            if "out_proj.lora_" in parameter_name:
                parameter.requires_grad = False
        # What has no gradient is neither trained nor decayed.
        (own / "losses.json").write_text(json.dumps(train(adapted, (inputs, classes), loss_of_output)))


@torch.no_grad()
def load(folder):
    for name in NETS:
        own = folder / name
        model, inputs, targets = net(name, own)
        state = torch.load(own / "base.pt", weights_only=True)
        exports = own / "run/exports"
        found = {}
        model.load_state_dict(load_file(exports / "model.safetensors"), strict=False)
        models = {"merged": model.eval()}
        base = NETS[name][0]()
        base.load_state_dict(state)
        models["adapters"] = PeftModel.from_pretrained(base, exports / "model-peft").eval()
        for which, loaded in models.items():
            outputs = loaded(inputs)
            loss = functional.cross_entropy(outputs.flatten(0, -2), targets.flatten()).item()
            found[which] = {"loss": loss, "outputs": outputs.flatten().tolist()}
        (own / "loaded.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    (load if "--load" in sys.argv else begin)(pathlib.Path(sys.argv[1]))
