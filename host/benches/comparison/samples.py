"""Writes the samples of a workload, and how they are trained on, for the programs in `peers`:

    python samples.py WORKLOAD FILE
"""

import sys

import numpy
from safetensors.numpy import save_file

import workloads


def main():
    name, path = sys.argv[1:]
    workload = workloads.load(name)
    settings = {
        "workload": name,
        "classes": workload.model(workload.inputs[:1]).shape[-1],
        "batch_size": workload.batch_size,
        "epochs": workload.epochs,
    }
    inputs, targets = workload.inputs.numpy(), workload.targets.numpy().astype(numpy.uint32)
    if inputs.dtype != numpy.float32:
        # Tokens.
        inputs = inputs.astype(numpy.uint32)
    save_file(
        {"inputs": inputs, "targets": targets}, path, {setting: str(value) for setting, value in settings.items()}
    )


if __name__ == "__main__":
    main()
