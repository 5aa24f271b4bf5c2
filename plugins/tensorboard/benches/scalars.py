"""Scalars per second of a Python writer: `scalars.py WRITER COUNT FOLDER`. It ends when everything is in the file."""

import importlib
import sys
import time

module, count, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
writer = importlib.import_module(module).SummaryWriter(f"{folder}/{module}")
begun = time.perf_counter()
for step in range(count):
    writer.add_scalar("train/loss", step * 0.5, step)
writer.close()
print(count / (time.perf_counter() - begun))
