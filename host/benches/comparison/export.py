"""Exports the model of a workload as the program that the host trains:

    python export.py {exported-mlp | exported-gpt2 | exported-resnet18} FILE
"""

import sys

import torch

import workloads


def main():
    name, path = sys.argv[1:]
    workload = workloads.load(name)
    example = workload.inputs[: workload.batch_size]
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(workload.model.train(), (example,), dynamic_shapes=dynamic), path)


if __name__ == "__main__":
    main()
