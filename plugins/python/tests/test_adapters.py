"""Adapters, with small classes that have the methods of the frameworks. The frameworks' own are in ``test_frameworks``."""

import json
import os
import unittest
from typing import Any, Dict, List, Optional

from host_plugin.adapters import adapted
from host_plugin.adapters._base import NotOfferedError
from host_plugin.testing import FakeHost
from host_plugin.values import DataInfo
from tests.protocol_host import ProtocolHost, floats, written


class KerasLike:
    """Writes down what it is told.

    Args:
        patience: How long it waits.
    """

    def __init__(self, patience=2, verbose=0, **kwargs):  # type: ignore[no-untyped-def]
        self.patience, self.told = patience, []
        self.best, self.wait = None, 0

    def set_params(self, params: Dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def on_train_begin(self, logs: Optional[Dict[str, float]] = None) -> None:
        self.best = None

    def on_epoch_begin(self, epoch: int, logs: Optional[Dict[str, float]] = None) -> None:
        self.told.append(("begin", epoch))

    def on_epoch_end(self, epoch: int, logs: Optional[Dict[str, float]] = None) -> None:
        self.told.append(("end", epoch, logs))
        loss = (logs or {})["val_loss"]
        if self.best is None or loss < self.best:
            self.best, self.wait = loss, 0
        else:
            self.wait += 1
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate / 2
            self.model.stop_training = self.wait >= self.patience

    def on_train_batch_end(self, batch: int, logs: Optional[Dict[str, float]] = None) -> None:
        self.told.append(("batch", batch, logs))


class OnlyReads:
    def on_epoch_end(self, epoch: int, logs: Dict[str, float]) -> None:
        self.model.summary()  # type: ignore[attr-defined]


class KeepsWeights:
    def set_model(self, model: Any) -> None:
        self.model = model

    def on_epoch_begin(self, epoch: int, logs: Dict[str, float]) -> None:
        self.weights = self.model.get_weights()

    def on_train_end(self, logs: Dict[str, float]) -> None:
        self.model.set_weights(self.weights)


class LightningLike:
    def __init__(self, limit: float = 0.5) -> None:
        self.limit, self.told = limit, []  # type: ignore[var-annotated]

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        self.told.append((stage, trainer.max_epochs))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        self.told.append((trainer.current_epoch, trainer.global_step, loss))
        trainer.logger.log_metrics({"doubled": 2 * loss}, step=trainer.global_step)
        module.log("halved", loss / 2)
        if loss <= self.limit:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            batch.size(0)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.told.append("validated")

    def state_dict(self) -> Dict[str, Any]:
        return {"told": len(self.told)}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        self.loaded = state_dict


class TrainerLike:
    def __init__(self) -> None:
        self.told: List[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.told.append(("begin", args.num_train_epochs, state.max_steps))

    def on_log(self, args: Any, state: Any, control: Any, logs: Optional[Dict[str, float]] = None, **kwargs: Any) -> None:
        self.told.append(("log", logs))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> Any:
        self.told.append(("evaluate", metrics["eval_loss"], state.best_metric))
        if metrics["eval_loss"] < 0.5:
            control.should_training_stop = True
            control.should_save = True
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.told.append(("epoch", state.epoch, state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.parameters()


class StopTraining(Exception):
    pass


class TensorpackLike:
    def __init__(self) -> None:
        self.told: List[Any] = []

    def _setup_graph(self) -> None:
        self.told.append(("setup", self.trainer.max_epoch))  # type: ignore[attr-defined]

    def _before_train(self) -> None:
        self.told.append("before")

    def _trigger_step(self) -> None:
        self.told.append(("step", self.local_step))  # type: ignore[attr-defined]

    def _trigger_epoch(self) -> None:
        monitors = self.trainer.monitors  # type: ignore[attr-defined]
        monitors.put_scalar("mine", 2 * monitors.get_latest("val_loss"))
        self.told.append((self.epoch_num, self.global_step, monitors.get_latest("mine")))  # type: ignore[attr-defined]
        if self.epoch_num == 2:  # type: ignore[attr-defined]
            raise StopTraining("enough")

    def _after_train(self) -> None:
        self.graph.finalize()  # type: ignore[attr-defined]


def host_of(kind: type, adapter: str, **options: Any) -> FakeHost:
    """A fake host of a run with three epochs of ten steps, after its start."""
    host = FakeHost(adapted(kind, adapter), **options)
    host.info = host.info._replace(
        epochs=3, steps_per_epoch=10, total_steps=30, folder=host.folder, data=DataInfo({"train": 100, "val": 20})
    )
    host.put_hyper_parameter("learning_rate", 0.1)
    host.setup()
    host.train_start()
    return host


def epoch(host: FakeHost, number: int, val_loss: float) -> None:
    """An epoch with its metrics."""
    host.epoch_start(number)
    host.position = host.position._replace(global_step=10 * number, step=10)
    host.put_metric("train_loss", val_loss / 2)
    host.fire("epoch_trained")
    host.put_metric("val_loss", val_loss)
    host.evaluation("eval_end")
    host.epoch_end(number)


class Adapters(unittest.TestCase):
    def setUp(self) -> None:
        folder = os.getcwd()
        self.addCleanup(os.chdir, folder)

    def own(self, host: FakeHost) -> Any:
        return host.callback.own  # type: ignore[attr-defined]

    def test_keras_counts_from_zero_and_has_its_names(self) -> None:
        host = host_of(KerasLike, "keras")
        self.assertEqual(host.descriptor["summary"], "Writes down what it is told")
        self.assertEqual(list(host.descriptor["options"]["properties"]), ["patience", "verbose"])
        self.assertEqual(
            host.descriptor["options"]["properties"]["patience"], {"description": "How long it waits.", "default": 2}
        )
        self.assertEqual((host.dispatch, host.descriptor["ranks"]), ("inline", "all"))
        self.assertEqual(self.own(host).params, {"epochs": 3, "steps": 10, "verbose": 0})
        host.put_metric("lonely", 7.0)
        epoch(host, 1, 0.5)
        self.assertEqual(self.own(host).told, [("begin", 0), ("end", 0, {"loss": 0.25, "val_loss": 0.5, "lonely": 7.0})])
        host.epoch_start(2)
        host.step_end(11)
        self.assertEqual(self.own(host).told[-1], ("batch", 0, {"loss": 0.25}))

    def test_keras_sets_the_learning_rate_and_stops(self) -> None:
        host = host_of(KerasLike, "keras")
        host.put_hyper_parameter("learning_rate", 0.125)
        host.put_hyper_parameter("learning_rate", 0.5, group="head")
        for number, loss in enumerate((0.5, 0.6, 0.7), 1):
            epoch(host, number, loss)
        self.assertEqual(host.hyper_parameter("learning_rate"), 0.03125)
        self.assertEqual(host.hyper_parameter("learning_rate", "head"), 0.125)
        self.assertEqual(host.stopped, "keras-like has set `stop_training`")

    def test_keras_evaluation_is_of_this_epoch(self) -> None:
        host = host_of(KerasLike, "keras")
        epoch(host, 1, 0.5)
        host.position = host.position._replace(global_step=20)
        with self.assertRaises(KeyError):
            host.epoch_end(2)

    def test_keras_weights_are_arrays(self) -> None:
        try:
            import numpy
        except ImportError:
            self.skipTest("NumPy is not installed")
        host = host_of(KeepsWeights, "keras")
        self.assertEqual({need["what"] for need in host.descriptor["needs"]}, {"parameters", "buffers"})
        host.put_tensors("parameters", {"w": floats(1, 2)})
        host.put_tensors("buffers", {"m": floats(3)})
        host.epoch_start(1)
        host.put_tensors("parameters", {"w": floats(5, 6)})
        host.put_tensors("buffers", {"m": floats(7)})
        host.fire("trained")
        self.assertEqual(host.tensors["parameters"]["w"].tolist(), [1, 2])
        self.assertEqual(host.tensors["buffers"]["m"].tolist(), [3])
        self.assertEqual(numpy.asarray(self.own(host).weights[0]).tolist(), [1, 2])

    def test_what_only_reads_runs_in_the_background_and_what_is_missing_says_so(self) -> None:
        host = host_of(OnlyReads, "keras")
        self.assertEqual(host.dispatch, "background")
        self.assertEqual(host.descriptor["hooks"], ["setup", "load_state", "save_state", "train_start", "epoch_end"])
        with self.assertRaisesRegex(NotOfferedError, "an adapter cannot offer its `summary`; it offers `stop_training`"):
            epoch(host, 1, 0.5)

    def test_a_state_is_what_is_no_option_and_comes_after_the_start(self) -> None:
        first = host_of(KerasLike, "keras", patience=5)
        epoch(first, 1, 0.5)
        epoch(first, 2, 0.6)
        second = FakeHost(adapted(KerasLike, "keras"), patience=3)
        second.info = first.info
        second.setup()
        second.load_state(first.save_state())
        second.train_start()
        own = self.own(second)
        self.assertEqual((own.best, own.wait, own.patience), (0.5, 1, 3))

    def test_one_that_is_started_anew_is_told_of_the_beginning(self) -> None:
        first = host_of(KerasLike, "keras")
        epoch(first, 1, 0.5)
        second = FakeHost(adapted(KerasLike, "keras"))
        second.info = first.info
        second.setup()
        second.load_state(first.save_state())
        second.put_hyper_parameter("learning_rate", 0.1)
        epoch(second, 2, 0.6)
        self.assertEqual((self.own(second).best, self.own(second).wait), (0.5, 1))

    def test_lightning(self) -> None:
        host = host_of(LightningLike, "lightning")
        self.assertEqual(host.dispatch, "inline")
        epoch(host, 1, 0.7)
        self.assertIsNone(host.stopped)
        epoch(host, 2, 0.5)
        own = self.own(host)
        self.assertEqual(own.told, [("fit", 3), "validated", (0, 10, 0.7), "validated", (1, 20, 0.5)])
        self.assertEqual(host.stopped, "lightning-like has set `should_stop`")
        self.assertEqual([(each.name, each.value.value) for each in host.records[:2]], [("doubled", 1.4), ("halved", 0.35)])
        host.epoch_start(3)
        host.step_end(21)
        with self.assertRaisesRegex(NotOfferedError, "the batch of this run is not a Python object"):
            host.step_end(22)
        again = FakeHost(adapted(LightningLike, "lightning"))
        again.info = host.info
        again.setup()
        again.load_state(host.save_state())
        again.train_start()
        self.assertEqual(self.own(again).loaded, {"told": 5})

    def test_transformers(self) -> None:
        host = host_of(TrainerLike, "transformers")
        self.assertEqual(host.dispatch, "inline")
        epoch(host, 1, 0.7)
        epoch(host, 2, 0.4)
        self.assertEqual(
            self.own(host).told,
            [
                ("begin", 3, 30),
                ("epoch", 1.0, 10),
                ("log", {"loss": 0.35, "epoch": 1.0}),
                ("log", {"eval_loss": 0.7, "epoch": 1.0}),
                ("evaluate", 0.7, None),
                ("epoch", 2.0, 20),
                ("log", {"loss": 0.2, "epoch": 2.0}),
                ("log", {"eval_loss": 0.4, "epoch": 2.0}),
                ("evaluate", 0.4, 0.7),
            ],
        )
        self.assertEqual([request.action for request in host.requests], ["stop", "checkpoint"])
        with self.assertRaisesRegex(NotOfferedError, "the model of this run is not a Python object"):
            host.step_end(21)

    def test_tensorpack(self) -> None:
        host = host_of(TensorpackLike, "tensorpack")
        self.assertEqual(host.dispatch, "inline")
        epoch(host, 1, 0.7)
        host.epoch_start(2)
        host.step_end(11)
        epoch(host, 2, 0.5)
        self.assertEqual(self.own(host).told, [("setup", 3), "before", (1, 10, 1.4), ("step", 1), (2, 20, 1.0)])
        self.assertEqual(host.stopped, "enough")
        self.assertEqual(host.records[0].name, "mine")
        with self.assertRaisesRegex(NotOfferedError, "`finalize`"):
            host.fire("trained")

    def test_what_an_instance_writes_is_in_the_run_folder(self) -> None:
        host = host_of(KerasLike, "keras")
        self.assertEqual(os.path.realpath(os.getcwd()), os.path.realpath(host.folder))


FRAMEWORK = '''
class Callback:
    def on_epoch_end(self, epoch, logs=None): pass
    def on_train_begin(self, logs=None): pass

class First(Callback):
    def __init__(self, size: int = 3): self.size = size
    def on_epoch_end(self, epoch, logs=None): print("first", epoch, self.size, flush=True)

class Second(Callback):
    pass
'''


class Chosen(unittest.TestCase):
    """The kind `python`: one class, by a name and an adapter."""

    def opened(self, text: str, *arguments: str, name: str = "mine.py", beside: bool = False) -> Any:
        path = written(text, name)
        if beside:
            with open(os.path.join(os.path.dirname(path), "keras.py"), "w", encoding="utf-8") as file:
                file.write(FRAMEWORK)
        with ProtocolHost(["--class", *arguments]) as host:
            return path, host.open("" if name == "none.py" else path)

    def test_a_class_of_a_framework_that_a_file_imports(self) -> None:
        path = written("from keras import *\n")
        with open(os.path.join(os.path.dirname(path), "keras.py"), "w", encoding="utf-8") as file:
            file.write(FRAMEWORK)
        with ProtocolHost(["--class", "First"]) as host:
            _, opened = host.open(path)
            descriptor = json.loads(opened["descriptors"][0])
            self.assertEqual((descriptor["kind"], descriptor["by_default"]), ("python", False))
            properties = descriptor["options"]["properties"]
            self.assertEqual(properties["args"]["properties"], {"size": {"type": "integer", "default": 3}})
            self.assertEqual(properties["file"]["format"], "input-path")
            options = {"file": path, "class": "First", "args": {"size": 5}}
            self.assertEqual(host.create(options=json.dumps(options))["status"], 0)
            host.event("setup")
            host.position = host.position._replace(epoch=2)
            self.assertEqual(host.event("epoch_end"), {"status": 0})
            host.destroy()
        self.assertEqual(host.stdout, "first 1 5\n")

    def test_a_class_by_its_package(self) -> None:
        _, (name, opened) = self.opened("import keras\n", "keras.First", beside=True)
        self.assertEqual(name, "opened")
        _, (name, opened) = self.opened("import keras\n", "keras:First", beside=True)
        self.assertEqual(name, "opened")

    def test_the_only_one_needs_no_name(self) -> None:
        _, (name, _opened) = self.opened("from keras import First, Callback\n", "", beside=True)
        self.assertEqual(name, "opened")
        _, (name, _opened) = self.opened("from keras import First\nclass Mine(First): pass\n", "", beside=True)
        self.assertEqual(name, "opened")

    def test_what_cannot_be_chosen_says_why(self) -> None:
        for text, arguments, message, hint in (
            ("from keras import *\n", ["Third"], "has no class `Third`", "it has First, Second"),
            ("from keras import *\n", [""], "has 2 callbacks: First, Second", "name one with `class`"),
            ("x = 1\n", [""], "has no callback", "name a class with `class`"),
            ("x = 1\n", ["x"], "has a int, no class, `x`", ""),
            ("class A: pass\n", ["A"], "is a callback of no framework that has an adapter", "keras, lightning"),
            ("class A: pass\n", ["A", "--adapter", "kers"], "there is no adapter `kers`", "keras, lightning"),
            ("", ["no_such_package.A"], "`no_such_package` cannot be imported", "install the package"),
        ):
            with self.subTest(message):
                _, (name, refused) = self.opened(text, *arguments, beside=True)
                self.assertEqual(name, "refused")
                self.assertIn(message, refused["message"])
                self.assertIn(hint, refused["hint"] or "")

    def test_without_a_file(self) -> None:
        _, (name, refused) = self.opened("", "First", name="none.py")
        self.assertEqual((name, refused["message"]), ("refused", "the class `First` has no file"))

    def test_an_adapter_may_be_named(self) -> None:
        text = "class Mine:\n    def _trigger_epoch(self): pass\n"
        _, (name, opened) = self.opened(text, "Mine", "--adapter", "tensorpack")
        self.assertEqual(name, "opened")
        self.assertIn("epoch_end", json.loads(opened["descriptors"][0])["hooks"])


if __name__ == "__main__":
    unittest.main()
