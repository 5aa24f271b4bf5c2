"""Callbacks of Keras: classes with the methods of ``keras.callbacks.Callback``.

Epochs and batches count from 0, as in Keras. The ``logs`` of an epoch are the run's metrics under Keras's names: ``train_loss`` is
``loss``, ``train_accuracy`` is ``accuracy``; ``val_loss`` and all others keep their names. Those of evaluated splits are there if
they were measured in this epoch. The batches of ``test`` are those of an evaluation of any split.

``model`` offers ``stop_training``, ``optimizer.learning_rate``, ``get_weights()`` and ``set_weights()``. ``on_train_end`` comes
when no step follows, before the last evaluation of the host, which sees the weights that it leaves.
"""

from typing import Any, Callable, Dict, List, Optional, Type

from ..callback import Callback, Need
from ..run import Run
from ._base import Adapted, Stub, call, has_any, mentions, subclass, translated


class Optimizer(Stub):
    """The optimizer of a Keras model, as far as it is its learning rate."""

    _what = "optimizer"
    _offers = "`learning_rate`"

    def __init__(self, model: "Model") -> None:
        object.__setattr__(self, "_model", model)

    @property
    def learning_rate(self) -> float:
        """That of the first parameter group."""
        model: Model = self._model
        return model.rates()[0]

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._model.set_rate(float(value))

    lr = learning_rate

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("learning_rate", "lr"):
            self.__getattr__(name)
        object.__setattr__(self, name, value)


class Model(Stub):
    """The model of a Keras callback, as far as the host offers it."""

    _what = "model"
    _offers = "`stop_training`, `optimizer.learning_rate`, `get_weights()` and `set_weights()`"

    def __init__(self, name: str) -> None:
        self.optimizer = Optimizer(self)
        self._name = name
        self._run: Optional[Run] = None
        self._stops = False
        self._rates: Optional[List[float]] = None

    def enter(self, run: Optional[Run]) -> None:
        """A hook begins or, with ``None``, ends."""
        self._run, self._rates = run, None

    def run(self) -> Run:
        """The run of the hook in progress."""
        if self._run is None:
            raise RuntimeError("the model was used outside of a method of the callback, such as on another thread")
        return self._run

    @property
    def stop_training(self) -> bool:
        """Whether a stop was asked for."""
        return self._stops

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        if value and not self._stops:
            self.run().stop(f"{self._name} has set `stop_training`")
        self._stops = bool(value)

    def rates(self) -> List[float]:
        """The learning rate of each parameter group."""
        if self._rates is None:
            groups = self.run().hyper_parameters()
            self._rates = [group.values["learning_rate"] for group in groups if "learning_rate" in group.values]
        return self._rates

    def set_rate(self, value: float) -> None:
        """Sets the learning rate. Where the groups' rates differ, they keep their ratio."""
        rates = self.rates()
        if all(rate == rates[0] for rate in rates) or rates[0] == 0.0:
            self.run().set_hyper_parameter("learning_rate", value)
            self._rates = [value] * len(rates)
            return
        self._rates = [rate * value / rates[0] for rate in rates]
        groups = [group.name for group in self.run().hyper_parameters() if "learning_rate" in group.values]
        for name, rate in zip(groups, self._rates):
            self.run().set_hyper_parameter("learning_rate", rate, group=name)

    def get_weights(self) -> List[Any]:
        """Copies of the parameters, then of the buffers, as NumPy arrays, in the model's order."""
        sets = (self.run().tensors("parameters"), self.run().tensors("buffers"))
        return [tensor.numpy().copy() for tensors in sets for tensor in tensors.values()]

    def set_weights(self, weights: Any) -> None:
        """Writes what ``get_weights`` gave."""
        rest = list(weights)
        for name in ("parameters", "buffers"):
            names = [info.name for info in self.run().list(name)]
            given, rest = rest[: len(names)], rest[len(names) :]
            if len(given) != len(names):
                raise ValueError(f"{len(list(weights))} arrays are not the weights of this model")
            if names:
                self.run().write(name, dict(zip(names, given)))


class Keras(Adapted):
    """Calls the methods of a Keras callback."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model = Model(self.instance or type(self).__name__)

    def on_setup(self, run: Run, event: Any) -> None:
        super().on_setup(run, event)
        info = run.info()
        epochs = info.epochs or -(-info.total_steps // max(info.steps_per_epoch, 1))
        call(self.own, "set_params", {"epochs": epochs, "steps": info.steps_per_epoch, "verbose": 0})
        if hasattr(self.own, "set_model"):
            self.own.set_model(self.model)
        else:
            self.own.model = self.model

    def begin(self, run: Run, event: Any) -> None:
        self.tell(run, "on_train_begin", {})

    def tell(self, run: Run, method: str, *arguments: Any) -> None:
        """Calls a method, during which the model belongs to the run."""
        self.model.enter(run)
        try:
            call(self.own, method, *arguments)
        finally:
            self.model.enter(None)


def _epoch_logs(run: Run, event: Any) -> Dict[str, float]:
    return translated(run.current_metrics(event.global_step), {"train_": ""})


def _batch_logs(run: Run, event: Any) -> Dict[str, float]:
    known = {name: value for name, value in run.metrics().items() if name.startswith("train_")}
    return translated(known, {"train_": ""})


def _test_logs(run: Run, event: Any) -> Dict[str, float]:
    prefix = f"{event.split}_"
    known = {name: value for name, value in run.current_metrics(event.global_step).items() if name.startswith(prefix)}
    return translated(known, {prefix: ""})


def _no_logs(run: Run, event: Any) -> Dict[str, float]:
    return {}


def _hook(method: str, logs: Callable[[Run, Any], Dict[str, float]], index: Optional[Callable[[Any], int]]) -> Any:
    def hook(self: Keras, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        arguments = [] if index is None else [index(event)]
        self.tell(run, method, *arguments, logs(run, event))

    return hook


def _both(method: str, older: str, logs: Any, index: Any) -> Any:
    """A hook for a method of batches, which has an older name in Keras, too; its base calls one from the other."""

    def hook(self: Keras, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        name = method if hasattr(self.own, method) else older
        self.tell(run, name, index(event), logs(run, event))

    return hook


def adapt(kind: type) -> Type[Callback]:
    """A class with the methods of a Keras callback as a callback of the host.

    One that names ``stop_training``, the optimizer or weights runs inline, so that what it asks for comes before the next step;
    any other one in the background.
    """

    def of_epoch(event: Any) -> int:
        return int(event.epoch) - 1

    def of_step(event: Any) -> int:
        return int(event.step) - 1

    def of_batch(event: Any) -> int:
        return int(event.batch) - 1

    candidates = {
        "epoch_start": (["on_epoch_begin"], _hook("on_epoch_begin", _no_logs, of_epoch)),
        "epoch_end": (["on_epoch_end"], _hook("on_epoch_end", _epoch_logs, of_epoch)),
        "trained": (["on_train_end"], _hook("on_train_end", _epoch_logs, None)),
        "step_start": (
            ["on_train_batch_begin", "on_batch_begin"],
            _both("on_train_batch_begin", "on_batch_begin", _no_logs, of_step),
        ),
        "step_end": (
            ["on_train_batch_end", "on_batch_end"],
            _both("on_train_batch_end", "on_batch_end", _batch_logs, of_step),
        ),
        "eval_start": (["on_test_begin"], _hook("on_test_begin", _no_logs, None)),
        "eval_step_start": (["on_test_batch_begin"], _hook("on_test_batch_begin", _no_logs, of_batch)),
        "eval_step_end": (["on_test_batch_end"], _hook("on_test_batch_end", _no_logs, of_batch)),
        "eval_end": (["on_test_end"], _hook("on_test_end", _test_logs, None)),
        "predict_start": (["on_predict_begin"], _hook("on_predict_begin", _no_logs, None)),
        "predict_step": (["on_predict_batch_end"], _hook("on_predict_batch_end", _no_logs, of_batch)),
        "predict_end": (["on_predict_end"], _hook("on_predict_end", _no_logs, None)),
    }
    hooks = {event: hook for event, (methods, hook) in candidates.items() if has_any(kind, methods)}
    changes = mentions(kind, "optimizer", "set_weights")
    waits = changes or mentions(kind, "stop_training", "get_weights")
    fields: Dict[str, Any] = {"dispatch": "inline" if waits else "background"}
    if changes:
        fields["ranks"] = "all"
    if mentions(kind, "set_weights"):
        fields["needs"] = [Need("parameters", write=True), Need("buffers", write=True)]
    return subclass(kind, Keras, hooks, **fields)
