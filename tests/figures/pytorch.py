"""The reference figures for losses, optimizers and schedules of the host, from PyTorch on a CPU.

    python pytorch.py > pytorch.json
"""

import json
import sys

import torch
from torch import nn
from torch.optim import lr_scheduler

STEPS = 50
BATCHES = 5

torch.manual_seed(11)
torch.set_num_threads(1)


def numbers(tensor):
    """The values in f32, so that reading them back gives the same bits."""
    return tensor.detach().double().flatten().tolist()


# --- optimizers: a net of two layers with biases on five batches in turn

INPUTS = [torch.randn(8, 3) for _ in range(BATCHES)]
TARGETS = [torch.randn(8, 2) for _ in range(BATCHES)]
START = {
    "fc1.weight": torch.randn(4, 3) * 0.5,
    "fc1.bias": torch.randn(4) * 0.5,
    "fc2.weight": torch.randn(2, 4) * 0.5,
    "fc2.bias": torch.randn(2) * 0.5,
}


def trained(make):
    parameters = {name: value.clone().requires_grad_() for name, value in START.items()}
    optimizer = make(parameters)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        hidden = torch.tanh(nn.functional.linear(INPUTS[step % BATCHES], parameters["fc1.weight"], parameters["fc1.bias"]))
        outputs = nn.functional.linear(hidden, parameters["fc2.weight"], parameters["fc2.bias"])
        loss = nn.functional.mse_loss(outputs, TARGETS[step % BATCHES])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            if value is not None:
                state[f"{key}.{name}"] = numbers(value)
    return {"losses": losses, "parameters": {name: numbers(value) for name, value in parameters.items()}, "state": state}


def optimizer_case(options, make):
    # The plain implementation, since the fused kernels would be compared with themselves.
    plain = {"foreach": False}
    return {"options": options, **trained(lambda parameters: make(parameters, plain))}


def everything(optimizer, **hyper_parameters):
    return lambda parameters, plain: optimizer(parameters.values(), **hyper_parameters, **plain)


def weights_only(optimizer, weight_decay, **hyper_parameters):
    """Decay only on tensors of two or more dimensions."""

    def make(parameters, plain):
        groups = [
            {"params": [value for value in parameters.values() if value.dim() > 1], "weight_decay": weight_decay},
            {"params": [value for value in parameters.values() if value.dim() <= 1], "weight_decay": 0.0},
        ]
        return optimizer(groups, **hyper_parameters, **plain)

    return make


def with_groups(parameters, plain):
    first = [value for name, value in parameters.items() if name.startswith("fc1.")]
    bias = [parameters["fc2.bias"]]
    rest = [parameters["fc2.weight"]]
    groups = [
        {"params": first, "lr": 0.002, "weight_decay": 0.2},
        {"params": bias, "lr": 0.02 * 0.1, "weight_decay": 0.0},
        {"params": rest},
    ]
    return torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1, **plain)


def optimizers():
    optim = torch.optim
    return [
        optimizer_case('type = "sgd"\nlearning_rate = 0.1', everything(optim.SGD, lr=0.1)),
        optimizer_case(
            'type = "sgd"\nlearning_rate = 0.05\nmomentum = 0.9\nweight_decay = 0.05\ndecay = "all"',
            everything(optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.05),
        ),
        optimizer_case(
            'type = "sgd"\nlearning_rate = 0.05\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.05',
            weights_only(optim.SGD, 0.05, lr=0.05, momentum=0.9, nesterov=True),
        ),
        optimizer_case(
            'type = "adam"\nlearning_rate = 0.02\nweight_decay = 0.1\ndecay = "all"',
            everything(optim.Adam, lr=0.02, weight_decay=0.1),
        ),
        optimizer_case(
            'type = "adam"\nlearning_rate = 0.02\nbetas = [0.8, 0.95]\neps = 1e-6\nweight_decay = 0.1',
            weights_only(optim.Adam, 0.1, lr=0.02, betas=(0.8, 0.95), eps=1e-6),
        ),
        optimizer_case(
            'type = "adamw"\nlearning_rate = 0.02\nweight_decay = 0.1\ndecay = "all"',
            everything(optim.AdamW, lr=0.02, weight_decay=0.1),
        ),
        optimizer_case(
            'type = "adamw"\nlearning_rate = 0.02\nweight_decay = 0.1', weights_only(optim.AdamW, 0.1, lr=0.02)
        ),
        optimizer_case(
            'type = "adamw"\nlearning_rate = 0.02\nweight_decay = 0.1\ngroups = [\n'
            '  { pattern = "fc1.*", learning_rate = 0.002, weight_decay = 0.2 },\n'
            '  { pattern = "*.bias", learning_rate_factor = 0.1, weight_decay = 0.0 },\n]',
            with_groups,
        ),
        optimizer_case('type = "rmsprop"\nlearning_rate = 0.01', everything(optim.RMSprop, lr=0.01)),
        optimizer_case(
            'type = "rmsprop"\nlearning_rate = 0.01\nalpha = 0.9\neps = 1e-6\nmomentum = 0.5\ncentered = true\n'
            'weight_decay = 0.05\ndecay = "all"',
            everything(optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-6, momentum=0.5, centered=True, weight_decay=0.05),
        ),
        optimizer_case(
            'type = "rmsprop"\nlearning_rate = 0.01\nmomentum = 0.5\nweight_decay = 0.05',
            weights_only(optim.RMSprop, 0.05, lr=0.01, momentum=0.5),
        ),
        optimizer_case('type = "adagrad"\nlearning_rate = 0.1', everything(optim.Adagrad, lr=0.1)),
        optimizer_case(
            'type = "adagrad"\nlearning_rate = 0.1\nlearning_rate_decay = 0.05\neps = 1e-6\n'
            'initial_accumulator_value = 0.1\nweight_decay = 0.05',
            weights_only(optim.Adagrad, 0.05, lr=0.1, lr_decay=0.05, eps=1e-6, initial_accumulator_value=0.1),
        ),
    ]


# --- schedules

TOTAL = 48
STEPS_PER_EPOCH = 6
EPOCHS = TOTAL // STEPS_PER_EPOCH


def rates(make, per_epoch=False):
    """The learning rate of each update, where the optimizer's own is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = make(optimizer)
    found = []
    for step in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % STEPS_PER_EPOCH == 0:
            schedule.step()
    return found


def warm(length, start, make):
    def build(optimizer):
        first = lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=length)
        return lr_scheduler.SequentialLR(optimizer, [first, make(optimizer)], milestones=[length])

    return build


def schedules():
    cycle = {"cycle_momentum": False}
    cases = [
        ('type = "constant"', None, lambda o: lr_scheduler.ConstantLR(o, factor=1.0), False),
        ('type = "step"\nsize = 7\ngamma = 0.5\nby = "step"', None, lambda o: lr_scheduler.StepLR(o, 7, 0.5), False),
        ('type = "step"\nsize = 3', None, lambda o: lr_scheduler.StepLR(o, 3), True),
        (
            'type = "multi_step"\nmilestones = [5, 20, 40]\ngamma = 0.3\nby = "step"',
            None,
            lambda o: lr_scheduler.MultiStepLR(o, [5, 20, 40], 0.3),
            False,
        ),
        ('type = "multi_step"\nmilestones = [2, 5]', None, lambda o: lr_scheduler.MultiStepLR(o, [2, 5]), True),
        ('type = "cosine"', None, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL), False),
        (
            'type = "cosine"\nminimum = 0.1\nby = "epoch"',
            None,
            lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.1),
            True,
        ),
        ('type = "one_cycle"', None, lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, **cycle), False),
        (
            'type = "one_cycle"\nrise = 0.4\ninitial_divisor = 10\nfinal_divisor = 100\nanneal = "linear"',
            None,
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, TOTAL, pct_start=0.4, div_factor=10, final_div_factor=100, anneal_strategy="linear", **cycle
            ),
            False,
        ),
        (
            'type = "one_cycle"\nby = "epoch"',
            None,
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, EPOCHS, **cycle),
            True,
        ),
        ('type = "polynomial"', None, lambda o: lr_scheduler.PolynomialLR(o, TOTAL), False),
        ('type = "polynomial"\npower = 2.0', None, lambda o: lr_scheduler.PolynomialLR(o, TOTAL, 2.0), False),
        (
            'type = "polynomial"\npower = 0.5\nby = "epoch"',
            None,
            lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 0.5),
            True,
        ),
        (
            'type = "cosine"',
            "steps = 10\nstart = 0.1",
            warm(10, 0.1, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL - 10)),
            False,
        ),
        (
            'type = "polynomial"',
            "epochs = 2\nstart = 0.01",
            warm(12, 0.01, lambda o: lr_scheduler.PolynomialLR(o, TOTAL - 12)),
            False,
        ),
        ('type = "constant"', "steps = 5\nstart = 0.5", lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 5), False),
        (
            'type = "step"\nsize = 9\nby = "step"',
            "steps = 4\nstart = 0.25",
            warm(4, 0.25, lambda o: lr_scheduler.StepLR(o, 9)),
            False,
        ),
    ]
    return [
        {"schedule": schedule, "warmup": warmup, "rates": rates(make, per_epoch)}
        for schedule, warmup, make, per_epoch in cases
    ]


# --- losses

def loss_case(options, outputs, targets, loss):
    outputs = outputs.clone().requires_grad_()
    value = loss(outputs, targets)
    value.backward()
    return {
        "options": options,
        "outputs": {"shape": list(outputs.shape), "values": numbers(outputs)},
        "targets": {"shape": list(targets.shape), "values": targets.flatten().tolist(), "classes": targets.dtype == torch.int64},
        "loss": value.item(),
        "gradient": numbers(outputs.grad),
    }


def flat(loss):
    return lambda outputs, targets: loss(outputs.flatten(0, -2), targets.flatten())


def logits(loss):
    return lambda outputs, targets: loss(outputs[:, 0], targets.float())


def losses():
    of_classes = (torch.randn(6, 4) * 2, torch.randint(0, 4, (6,)))
    of_tokens = (torch.randn(3, 5, 4) * 2, torch.randint(0, 4, (3, 5)))
    of_values = (torch.randn(6, 3), torch.randn(6, 3))
    of_shares = (torch.randn(6, 3), torch.rand(6, 3))
    of_two = (torch.randn(6, 1), torch.randint(0, 2, (6,)))
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    weighted = "class_weights = [0.5, 1.0, 2.0, 4.0]"
    return [
        loss_case('type = "cross_entropy"', *of_classes, nn.CrossEntropyLoss()),
        loss_case('type = "cross_entropy"\nlabel_smoothing = 0.1', *of_classes, nn.CrossEntropyLoss(label_smoothing=0.1)),
        loss_case(f'type = "cross_entropy"\n{weighted}', *of_classes, nn.CrossEntropyLoss(weights)),
        loss_case('type = "cross_entropy"', *of_tokens, flat(nn.CrossEntropyLoss())),
        loss_case(
            f'type = "cross_entropy"\nlabel_smoothing = 0.2\n{weighted}',
            *of_tokens,
            flat(nn.CrossEntropyLoss(weights, label_smoothing=0.2)),
        ),
        loss_case('type = "bce_with_logits"', *of_two, logits(nn.BCEWithLogitsLoss())),
        loss_case(
            'type = "bce_with_logits"\npos_weight = [3.0]',
            *of_two,
            logits(nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))),
        ),
        loss_case('type = "bce_with_logits"', *of_shares, nn.BCEWithLogitsLoss()),
        loss_case(
            'type = "bce_with_logits"\npos_weight = [0.5, 1.0, 2.0]',
            *of_shares,
            nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5, 1.0, 2.0])),
        ),
        loss_case('type = "mse"', *of_values, nn.MSELoss()),
        loss_case('type = "l1"', *of_values, nn.L1Loss()),
        loss_case('type = "huber"', *of_values, nn.HuberLoss()),
        loss_case('type = "huber"\ndelta = 0.3', *of_values, nn.HuberLoss(delta=0.3)),
    ]


def main():
    figures = {
        "made_with": {"torch": torch.__version__},
        "problem": {
            "inputs": [numbers(batch) for batch in INPUTS],
            "targets": [numbers(batch) for batch in TARGETS],
            "start": [[name, list(value.shape), numbers(value)] for name, value in START.items()],
        },
        "optimizers": optimizers(),
        "schedule_length": {"total_steps": TOTAL, "steps_per_epoch": STEPS_PER_EPOCH},
        "schedules": schedules(),
        "losses": losses(),
    }
    json.dump(figures, sys.stdout)
    print()


main()
