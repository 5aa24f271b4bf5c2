"""Callbacks of Keras, Lightning and Transformers, unmodified; skipped where these are not installed.

The packages are those of ``tests/requirements-pytorch.txt``.
"""

import csv
import importlib.util
import os
import unittest
from typing import Any, List

os.environ.setdefault("KERAS_BACKEND", "torch")

from tests.test_adapters import epoch, host_of

LOSSES = (0.9, 0.5, 0.6, 0.55, 0.7, 0.65)


def is_there(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


class InFolder(unittest.TestCase):
    def setUp(self) -> None:
        folder = os.getcwd()
        self.addCleanup(os.chdir, folder)

    def train(self, kind: type, adapter: str, **options: Any) -> Any:
        """Runs epochs until the callback asks for a stop; the host, and the epochs that there were."""
        host = host_of(kind, adapter, **options)
        ran: List[int] = []
        for number, loss in enumerate(LOSSES, 1):
            epoch(host, number, loss)
            ran.append(number)
            if host.stopped is not None:
                break
        host.fire("trained")
        return host, len(ran)


@unittest.skipUnless(is_there("keras", "torch"), "Keras is not installed")
class Keras(InFolder):
    def test_csv_logger(self) -> None:
        from keras.callbacks import CSVLogger

        host, _ = self.train(CSVLogger, "keras", filename="log.csv")
        self.assertEqual(host.dispatch, "background")
        with open(os.path.join(host.folder, "log.csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([float(row["val_loss"]) for row in rows], list(LOSSES))
        self.assertEqual([int(row["epoch"]) for row in rows], list(range(6)))
        self.assertEqual(float(rows[1]["loss"]), 0.25)

    def test_early_stopping_restores_the_best_weights(self) -> None:
        import numpy
        from keras.callbacks import EarlyStopping

        class Trains(EarlyStopping):
            """The weights are the number of the epoch."""

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.model.set_weights([numpy.full(2, epoch + 1, dtype=numpy.float32)])

        from host_plugin.adapters import adapted
        from host_plugin.testing import FakeHost

        made = adapted(Trains, "keras")
        self.assertEqual(made.dispatch, "inline")
        host = FakeHost(made, monitor="val_loss", patience=3, restore_best_weights=True)
        host.info = host.info._replace(epochs=6, steps_per_epoch=10, folder=host.folder)
        host.put_tensors("parameters", {"w": numpy.zeros(2, dtype=numpy.float32)})
        host.tensors["buffers"] = {}
        host.setup()
        host.train_start()
        for number, loss in enumerate(LOSSES, 1):
            epoch(host, number, loss)
            if host.stopped is not None:
                break
        host.fire("trained")
        self.assertEqual((number, host.stopped), (5, "trains has set `stop_training`"))
        self.assertEqual(host.tensors["parameters"]["w"].tolist(), [2.0, 2.0])

    def test_reduce_on_plateau(self) -> None:
        from keras.callbacks import ReduceLROnPlateau

        host, ran = self.train(ReduceLROnPlateau, "keras", patience=2, factor=0.5, min_delta=0)
        self.assertEqual((ran, host.hyper_parameter("learning_rate")), (6, 0.025))

    def test_learning_rate_scheduler(self) -> None:
        from keras.callbacks import LearningRateScheduler

        class Halves(LearningRateScheduler):
            def __init__(self) -> None:
                super().__init__(lambda epoch, rate: 0.1 / 2**epoch)

        host, _ = self.train(Halves, "keras")
        self.assertAlmostEqual(host.hyper_parameter("learning_rate"), 0.1 / 32)

    def test_what_needs_the_model_says_so(self) -> None:
        from keras.callbacks import ModelCheckpoint

        with self.assertRaisesRegex(AttributeError, "not a Python object: an adapter cannot offer its"):
            self.train(ModelCheckpoint, "keras", filepath="model.keras")


@unittest.skipUnless(is_there("lightning", "torch"), "Lightning is not installed")
class Lightning(InFolder):
    def test_a_callback_of_the_documentation(self) -> None:
        from lightning.pytorch.callbacks import Callback

        class MyPrintingCallback(Callback):
            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                self.lines = ["Training is starting"]

            def on_train_end(self, trainer: Any, pl_module: Any) -> None:
                self.lines.append("Training is ending")

        host, _ = self.train(MyPrintingCallback, "lightning")
        self.assertEqual(host.dispatch, "background")
        self.assertEqual(host.callback.own.lines, ["Training is starting", "Training is ending"])

    def test_early_stopping(self) -> None:
        from lightning.pytorch.callbacks import EarlyStopping

        host, ran = self.train(EarlyStopping, "lightning", monitor="val_loss", patience=3)
        self.assertEqual((ran, host.stopped), (5, "early-stopping has set `should_stop`"))


@unittest.skipUnless(is_there("transformers", "torch"), "Transformers is not installed")
class Transformers(InFolder):
    def test_early_stopping(self) -> None:
        from transformers import EarlyStoppingCallback

        host, ran = self.train(EarlyStoppingCallback, "transformers", early_stopping_patience=3)
        self.assertEqual(ran, 5)
        self.assertTrue(host.requested("stop"))

    def test_a_callback_that_prints(self) -> None:
        from transformers import PrinterCallback

        host, _ = self.train(PrinterCallback, "transformers")
        self.assertEqual(host.dispatch, "background")
        self.assertEqual(host.callback.state.log_history[-1], {"eval_loss": 0.65, "epoch": 6.0, "step": 60})


if __name__ == "__main__":
    unittest.main()
