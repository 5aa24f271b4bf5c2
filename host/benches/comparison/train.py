"""Trains a workload with one of the frameworks, and prints as JSON how long a step took and what was learned:

    python train.py {eager | gathered | compiled | lightning | accelerated} WORKLOAD --threads N --warm-up STEPS

Each is written as a competent user of the framework would: data in memory, no worker processes, the fused AdamW;
bars, logs and checkpoints off. Frameworks are imported where they are used, so that each process has its own peak
memory.
"""

import argparse
import dataclasses
import json
import logging
import time
import warnings

import torch
from torch.utils.data import DataLoader, TensorDataset

import workloads


class Clock:
    """Called in each step where its loss is computed; excludes the time of the first steps. Keeps the loss of the first
    step, and those of the last tenth of the steps."""

    def __init__(self, warm_up, all_steps):
        self.warm_up = warm_up
        self.kept_after = all_steps - all_steps // 10
        self.steps = 0
        self.losses = []

    def tick(self, loss):
        self.steps += 1
        if self.steps == self.warm_up:
            self.began = time.perf_counter()
        if self.steps == 1 or self.steps > self.kept_after:
            self.losses.append(loss.detach())
        self.newest = time.perf_counter()

    def report(self):
        first, *last = (loss.item() for loss in self.losses)
        return {
            "seconds_per_step": (self.newest - self.began) / (self.steps - self.warm_up),
            "steps": self.steps,
            "first_loss": first,
            "last_loss": sum(last) / len(last),
        }


def batches(workload):
    return DataLoader(TensorDataset(workload.inputs, workload.targets), workload.batch_size, shuffle=True)


def train_eagerly(workload, loss_function, epoch):
    """PyTorch's own loop; `epoch` yields the batches of an epoch."""
    model, optimizer = workload.model, workload.optimizer()
    model.train()
    for _ in range(workload.epochs):
        total = 0.0
        for inputs, targets in epoch():
            optimizer.zero_grad()
            loss = loss_function(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)


def eager(workload, loss_function):
    """Batches from a `DataLoader`, which collates them sample by sample."""
    loader = batches(workload)
    train_eagerly(workload, loss_function, lambda: loader)


def gathered(workload, loss_function):
    """Batches by `index_select` from tensors in memory, which few people write and which is faster."""

    def epoch():
        for indices in torch.randperm(len(workload.inputs)).split(workload.batch_size):
            yield workload.inputs.index_select(0, indices), workload.targets.index_select(0, indices)

    train_eagerly(workload, loss_function, epoch)


def compiled(workload, loss_function):
    """The loop of `gathered`, with a model of `torch.compile`."""
    gathered(dataclasses.replace(workload, model=torch.compile(workload.model)), loss_function)


def lightning(workload, loss_function):
    from lightning import pytorch

    class Module(pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = workload.model

        def training_step(self, batch, batch_index):
            inputs, targets = batch
            return loss_function(self.model(inputs), targets)

        def configure_optimizers(self):
            return workload.optimizer()

    # Lightning's advice to use workers does not help for data in memory.
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pytorch.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=workload.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), batches(workload))


def accelerated(workload, loss_function):
    from pytorch_accelerated import Trainer

    trainer = Trainer(workload.model, loss_func=loss_function, optimizer=workload.optimizer(), callbacks=())
    trainer.train(
        train_dataset=TensorDataset(workload.inputs, workload.targets),
        num_epochs=workload.epochs,
        per_device_batch_size=workload.batch_size,
        train_dataloader_kwargs={"num_workers": 0},
    )


FRAMEWORKS = {function.__name__: function for function in (eager, gathered, compiled, lightning, accelerated)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("workload")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    workload = workloads.load(arguments.workload)
    clock = Clock(arguments.warm_up, workload.steps)

    def loss_function(outputs, targets):
        loss = workload.loss(outputs, targets)
        clock.tick(loss)
        return loss

    FRAMEWORKS[arguments.framework](workload, loss_function)
    parameters = sum(parameter.numel() for parameter in workload.model.parameters())
    print(json.dumps(clock.report() | {"parameters": parameters}))


if __name__ == "__main__":
    main()
