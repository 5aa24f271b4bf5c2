"""Trains the same models with the host and with PyTorch's loops, in turns, and prints ratios:

    python compare.py --host target/release/host --plugins target/plugins [--peers DIR] [--rounds N] [WORKLOAD ...]

The interpreter needs the packages of tests/requirements-pytorch.txt; `cargo xtask bench` prepares all of it. With
`--peers`, frameworks of Rust take part in the workloads for which `peers` has their models, with the same samples.

Every contestant of a round trains the run file's steps in its own process, on as many threads as the host chooses with
`threads = "auto"`, and with libgomp's threads waiting as long as the host's. A step's time is that of the whole loop:
waiting for data, forward, backward, update, reading the loss, and the ends of epochs. The first steps do not count: the
frameworks' clocks start after them, and the time of a second host run with only those steps is subtracted from the
first. Other work of the machine only adds time, so the fastest round of each contestant counts. A ratio that misses
its target is marked, but nothing fails. A framework that trained another model than PyTorch's loop, or learned less, is
an error.

In workloads called `exported-…` the host trains what `torch.export.save` wrote of the model that PyTorch's loops train.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import numpy

FOLDER = pathlib.Path(__file__).parent
WORKLOADS = {
    # Targets of the ratios, by framework.
    "mlp": {"eager": 6.0, "gathered": 3.0, "compiled": 3.8, "lightning": 12.0},
    "cnn": {"eager": 2.0, "compiled": 1.9, "lightning": 1.8},
    "transformer": {"eager": 1.7, "compiled": 1.6},
    "gru": {"eager": 1.8},
    "exported-mlp": {"gathered": 1.0},
    "exported-gpt2": {"gathered": 2.0},
    "exported-resnet18": {"gathered": 1.1},
}
NAMES = {
    "host": "host",
    "host with plugins": "host, default plugins",
    "eager": "PyTorch, DataLoader",
    "gathered": "PyTorch, index_select",
    "compiled": "PyTorch, torch.compile",
    "lightning": "PyTorch Lightning",
    "accelerated": "pytorch-accelerated",
}
# By the names of their folders in `peers`.
PEERS = {"burn": "Burn, flex", "candle": "candle"}
WORKLOADS_OF_PEERS = ["mlp", "cnn", "transformer"]
# Of an exported program.
LOOPS_OF_EXPORTED = ["host", "eager", "gathered"]
# By which share a contestant may lower the loss less than PyTorch's loop: weights and the order of samples are random.
LEARNED_LESS = 0.1
# As the host sets it for itself (host/src/cli/openmp.rs).
ENVIRONMENT = os.environ | {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000")}
# The most memory and waiting time of the host, as shares of Lightning's peak memory and of the time.
MEMORY_SHARE = 1 / 3
WAIT_SHARE = 0.01
MB = 1e6


@dataclasses.dataclass
class Result:
    # Seconds, one per round.
    steps: list = dataclasses.field(default_factory=list)
    # Bytes, the largest of all rounds.
    peak: int = 0
    # The share of the time in which the loop waited for data, one per round.
    waits: list = dataclasses.field(default_factory=list)
    # What the latest round of another framework told: steps, parameters, and losses.
    told: dict = dataclasses.field(default_factory=dict)

    def best(self):
        return min(self.steps)


def finish(command, **environment):
    """Runs to the end; returns its stdout, its stderr, and its peak resident memory in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=ENVIRONMENT | environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        written, told = out.read().decode(), err.read().decode()
    if process.returncode != 0:
        sys.exit(f"`{' '.join(map(str, command))}` failed ({process.returncode}):\n{told}")
    return written, told, usage.ru_maxrss * 1024


class Comparison:
    def __init__(self, host, plugins, peers, workload, folder):
        """Models and samples are exported into `folder`; `peers` is the folder of the peers' programs, or none."""
        self.host, self.plugins, self.peers, self.workload = host, plugins, peers, workload
        self.run_file = FOLDER / f"{workload}.toml"
        self.steps = tomllib.loads(self.run_file.read_text())["train"]["steps"]
        self.warm_up = self.steps // 5
        # As the host says: they depend on the operations of a step, which it counts.
        self.threads, self.megaflops = None, None
        self.settings, contestants = [], NAMES
        if workload.startswith("exported-"):
            program, contestants = folder / f"{workload}.pt2", LOOPS_OF_EXPORTED
            finish([sys.executable, FOLDER / "export.py", workload, program])
            self.settings = ["--set", f"model.exported={json.dumps(str(program))}"]
        if peers and workload in WORKLOADS_OF_PEERS:
            self.samples, contestants = folder / f"{workload}.safetensors", NAMES | PEERS
            finish([sys.executable, FOLDER / "samples.py", workload, self.samples])
        self.results = {contestant: Result() for contestant in contestants}

    def run_round(self):
        for contestant, result in self.results.items():
            if contestant.startswith("host"):
                self.train_with_host(result, [self.plugins] if contestant == "host with plugins" else [])
            else:
                self.train_with(contestant, result)

    def train_with_host(self, result, plugins):
        def train(steps):
            with tempfile.TemporaryDirectory() as folder:
                command = [self.host, "run", self.run_file, "--set", f"train.steps={steps}", "--out", folder]
                command += self.settings + [argument for path in plugins for argument in ("--plugins", path)]
                _, told, peak = finish(command)
                status = json.loads((pathlib.Path(folder) / "status.json").read_text())
            self.threads, self.megaflops = work(told)
            return status, peak

        (short, _), (whole, peak) = train(self.warm_up), train(self.steps)
        result.steps.append((whole["elapsed"] - short["elapsed"]) / (self.steps - self.warm_up))
        result.peak = max(result.peak, peak)
        result.waits.append(whole["waited_for_data"] / whole["elapsed"])

    def train_with(self, framework, result):
        if framework in PEERS:
            command = [self.peers / f"{framework}-peer", self.samples, str(self.warm_up)]
        else:
            command = [sys.executable, FOLDER / "train.py", framework, self.workload]
            command += ["--threads", str(self.threads), "--warm-up", str(self.warm_up)]
        # The peers compute on the threads of Rayon.
        written, _, peak = finish(command, RAYON_NUM_THREADS=str(self.threads))
        result.told = json.loads(written.splitlines()[-1])
        self.check(framework, result.told)
        result.steps.append(result.told["seconds_per_step"])
        result.peak = max(result.peak, peak)

    def check(self, framework, told):
        """Ends the comparison if a framework did something else than PyTorch's loop, which comes before the others."""
        expected = self.results["eager"].told
        for key, wanted in {"steps": self.steps, "parameters": expected["parameters"]}.items():
            if told[key] != wanted:
                sys.exit(f"{framework} trained {told[key]} {key} of {self.workload} instead of {wanted}")
        limit = expected["last_loss"] + LEARNED_LESS * (expected["first_loss"] - expected["last_loss"])
        # Also false of NaN.
        if not told["last_loss"] < limit:
            reached = f"{told['last_loss']:.3f}, not below {limit:.3f}"
            sys.exit(f"{framework} lowered the loss of {self.workload} to {reached}")

    def table(self):
        """Rows of workload, contestant, steps per second, the host's ratio, its target, whether it is met, peak."""
        host = self.results["host"].best()
        for contestant, result in self.results.items():
            ratio = result.best() / host
            target = WORKLOADS[self.workload].get(contestant)
            yield [
                f"{self.workload}, threads {self.threads}",
                (NAMES | PEERS)[contestant],
                f"{1 / result.best():.1f}",
                f"{ratio:.2f} ×",
                f"≥ {target} ×" if target else "–",
                met(ratio >= target) if target else "–",
                f"{result.peak / MB:.0f}",
            ]

    def remarks(self, peaks):
        """Figures that are not in the table; `peaks` are in GFLOP/s, by threads."""
        host = self.results["host"]
        if self.megaflops:
            reached, peak = self.megaflops / host.best() / 1e3, peaks[self.threads]
            share = f"{reached / peak:.2f} of what products reach on {self.threads} threads"
            yield f"{self.workload}: {reached:.0f} GFLOP/s, {share}"
        wait = max(host.waits)
        target = f"; target: < {WAIT_SHARE:.0%}, met: {met(wait < WAIT_SHARE)}" if self.workload == "cnn" else ""
        yield f"{self.workload}: the host's loop waited for data for at most {wait:.2%} of a round{target}"
        if self.workload == "mlp":
            share = host.peak / self.results["lightning"].peak
            target = f"target: ≤ {MEMORY_SHARE:.2f}, met: {met(share <= MEMORY_SHARE)}"
            yield f"mlp: the host's peak of memory is {share:.2f} of Lightning's; {target}"
        if self.results.keys() & PEERS.keys():
            losses = (((NAMES | PEERS)[name], self.results[name].told["last_loss"]) for name in ["eager", *PEERS])
            told = "; ".join(f"{name}, {loss:.4f}" for name, loss in losses)
            yield f"{self.workload}: mean loss of the last tenth of the steps: {told}"


def work(told):
    """Threads, and the millions of operations of a step, from what the host tells at the start of a run; of a run file that
    fixes the threads, it does not count them."""
    threads, megaflops = re.search(r"\bthreads (\d+) \((?:auto: (?:about )?([\d.]+) MFLOP)?", told).groups()
    return int(threads), megaflops and float(megaflops)


# Rows and columns of the products whose speed is the machine's peak, and how many a step has: of two layers forward, and
# of both weights and one input backward.
SIZE, PRODUCTS = 1024, 5


def peak_of_products(host, threads, folder):
    """The most GFLOP/s that the host's products reach on this machine, measured in a training of two large layers."""
    rows = numpy.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=numpy.float32)
    numpy.savez(folder / "peak.npz", inputs=rows, targets=rows)
    layer = f'{{ type = "linear", out_features = {SIZE} }}'
    (folder / "peak.toml").write_text(f"""
        [run]
        name = "peak"
        device = "cpu"
        threads = {threads}
        [data]
        format = "npz"
        path = "peak.npz"
        inputs = "inputs"
        targets = "targets"
        [model]
        layers = [{layer}, {layer}]
        [train]
        batch_size = {SIZE}
        loss = {{ type = "mse" }}
        optimizer = {{ type = "sgd", learning_rate = 1e-3 }}
    """)

    def seconds(steps):
        out = folder / f"peak-{threads}-{steps}"
        finish([host, "run", folder / "peak.toml", "--set", f"train.steps={steps}", "--out", out])
        return json.loads((out / "status.json").read_text())["elapsed"]

    return PRODUCTS * 2 * SIZE**3 / ((seconds(45) - seconds(5)) / 40) / 1e9


def met(is_met):
    return "yes" if is_met else "NO"


def print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        # Text on the left, numbers on the right.
        words = [cell.ljust(width) for cell, width in zip(row[:2], widths)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:])]
        print("  ".join(words + numbers))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--host", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--plugins", type=pathlib.Path, required=True, help="the folder of the shipped plugins")
    parser.add_argument("--peers", type=pathlib.Path, help="the folder of the programs burn-peer and candle-peer")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.workloads:
        if name not in WORKLOADS:
            parser.error(f"there is no workload `{name}`; the workloads are {', '.join(WORKLOADS)}")

    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, pathlib.Path(folder))


def compare(arguments, folder):
    names = arguments.workloads or WORKLOADS
    programs = arguments.host, arguments.plugins, arguments.peers
    comparisons = [Comparison(*programs, name, folder) for name in names]
    peaks = {}
    for number in range(arguments.rounds):
        load = os.getloadavg()[0]
        print(f"round {number + 1} of {arguments.rounds}; the machine's load is {load:.1f}", file=sys.stderr)
        for comparison in comparisons:
            comparison.run_round()
        for threads in {comparison.threads for comparison in comparisons}:
            place = folder / f"round-{number}"
            place.mkdir(exist_ok=True)
            peaks[threads] = max(peaks.get(threads, 0), peak_of_products(arguments.host, threads, place))
    heading = ["workload", "loop", "steps/s", "host is", "target", "met", "peak MB"]
    print_table([heading, *(row for comparison in comparisons for row in comparison.table())])
    for comparison in comparisons:
        for remark in comparison.remarks(peaks):
            print(remark)


if __name__ == "__main__":
    main()
