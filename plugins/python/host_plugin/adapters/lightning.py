"""Callbacks of Lightning: classes with the methods of ``lightning.pytorch.Callback``.

``trainer`` offers ``callback_metrics``, ``logged_metrics`` and ``progress_bar_metrics`` (the run's metrics under their own
names, as tensors where PyTorch is there), ``current_epoch`` and ``global_step``, both from 0 as in Lightning, ``max_epochs``,
``max_steps``, ``num_training_batches``, ``should_stop``, ``logger.log_metrics``, ``default_root_dir`` and ``log_dir`` (the run
folder), ``is_global_zero``, ``global_rank`` and ``world_size``. ``module.log`` and ``module.log_dict`` put records. The module
itself, batches and outputs are not offered.

``on_train_epoch_end`` comes after the evaluation of an epoch, as in Lightning. The methods with ``validation`` are for evaluations
of every split but ``test``.
"""

import sys
from typing import Any, Dict, List, Mapping, Optional, Type

from ..callback import Callback
from ..run import Run
from ..values import Scalar
from ._base import Adapted, Missing, Stub, call, has_any, mentions, subclass


class Logger(Stub):
    """A logger that puts records, which the run's monitors show."""

    _what = "logger"
    _offers = "`log_metrics` and `log_hyperparams`"
    name = "host"
    version = ""

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    def log_metrics(self, metrics: Mapping[str, Any], step: Optional[int] = None) -> None:
        """Puts each as a scalar; the host knows the step."""
        self._trainer.put(metrics)

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """The run file has the hyper-parameters already."""


class Module(Stub):
    """The module of a Lightning callback, as far as it logs."""

    _what = "module"
    _offers = "`log`, `log_dict`, `current_epoch` and `global_step`"

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer

    @property
    def logger(self) -> Logger:
        """The trainer's logger."""
        return self.trainer.logger

    @property
    def current_epoch(self) -> int:
        """The epoch, from 0."""
        return self.trainer.current_epoch

    @property
    def global_step(self) -> int:
        """How many updates were done."""
        return self.trainer.global_step

    def log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """Puts a scalar."""
        self.trainer.put({name: value})

    def log_dict(self, dictionary: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Puts each as a scalar."""
        self.trainer.put(dictionary)


class _Strategy(Stub):
    _what = "strategy"
    _offers = "`reduce_boolean_decision` and `barrier`"

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Metrics are those of all ranks, and so are decisions about them."""
        return bool(decision)

    def barrier(self, *_: Any, **__: Any) -> None:
        """The ranks meet in the host."""


class _State(Stub):
    """``trainer.state``; the names are those of ``lightning.pytorch.trainer.states``."""

    _what = "state of the trainer"
    _offers = "`fn`, `stage` and `status`"

    def __init__(self, function: str) -> None:
        states = sys.modules.get("lightning.pytorch.trainer.states") or sys.modules.get("pytorch_lightning.trainer.states")
        known = getattr(states, "TrainerFn", None)
        self.fn: Any = known(function) if known is not None else function
        self.stage = None
        self.status = "running"


class Trainer(Stub):
    """The trainer of a Lightning callback, as far as the host offers it."""

    _what = "trainer"
    _offers = (
        "`callback_metrics`, `current_epoch`, `global_step`, `max_epochs`, `max_steps`, `num_training_batches`, `should_stop`, "
        "`logger` and `default_root_dir`"
    )
    sanity_checking = False
    fast_dev_run = False
    check_val_every_n_epoch = 1
    val_check_interval = 1.0
    num_nodes = 1
    callbacks: List[Any] = []

    def __init__(self, name: str) -> None:
        self.logger = Logger(self)
        self.loggers = [self.logger]
        self.lightning_module = Module(self)
        self.strategy = _Strategy()
        self.state = _State("fit")
        self.current_epoch = 0
        self.global_step = 0
        self._name = name
        self._run: Optional[Run] = None
        self._stops = False
        self._metrics: Optional[Dict[str, float]] = None
        self._own: Dict[str, float] = {}

    def describe(self, run: Run) -> None:
        """Takes what does not change in a run."""
        info = run.info()
        steps = info.steps_per_epoch
        self.max_epochs = info.epochs or -(-info.total_steps // max(steps, 1))
        self.max_steps = info.total_steps
        self.num_training_batches = steps
        self.estimated_stepping_batches = info.total_steps
        self.default_root_dir = self.log_dir = info.folder
        self.global_rank, self.world_size = info.rank, max(info.world_size, 1)
        self.local_rank = self.node_rank = 0
        self.is_global_zero = info.rank == 0
        jobs = {"evaluate": "validate", "predict": "predict"}
        self.state = _State(jobs.get(info.job, "fit"))

    def enter(self, run: Optional[Run], event: Any) -> None:
        """A hook begins or, without a run, ends."""
        self._run, self._metrics = run, None
        if run is not None:
            self.current_epoch = max(event.epoch - 1, 0)
            self.global_step = event.global_step
            self._at = event.global_step

    def run(self) -> Run:
        """The run of the hook in progress."""
        if self._run is None:
            raise RuntimeError("the trainer was used outside of a method of the callback, such as on another thread")
        return self._run

    def put(self, metrics: Mapping[str, Any]) -> None:
        """Puts records, and keeps them among the metrics of callbacks."""
        for name, value in metrics.items():
            number = float(value)
            self.run().put_record(name, Scalar(number))
            self._own[name] = number

    def _values(self) -> Dict[str, float]:
        if self._metrics is None:
            self._metrics = self.run().current_metrics(self._at)
        return {**self._own, **self._metrics}

    @property
    def callback_metrics(self) -> Dict[str, Any]:
        """The metrics that hold now; tensors where PyTorch is there."""
        torch = sys.modules.get("torch")
        values = self._values()
        return values if torch is None else {name: torch.tensor(value) for name, value in values.items()}

    logged_metrics = callback_metrics

    @property
    def progress_bar_metrics(self) -> Dict[str, float]:
        """The same as numbers."""
        return self._values()

    @property
    def should_stop(self) -> bool:
        """Whether a stop was asked for."""
        return self._stops

    @should_stop.setter
    def should_stop(self, value: Any) -> None:
        if value and not self._stops:
            self.run().stop(f"{self._name} has set `should_stop`")
        self._stops = bool(value)

    @property
    def is_last_batch(self) -> bool:
        """Whether this is the last batch of the epoch."""
        return self.num_training_batches > 0 and self._at % self.num_training_batches == 0


class Lightning(Adapted):
    """Calls the methods of a Lightning callback."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.trainer = Trainer(self.instance or type(self).__name__)

    def begin(self, run: Run, event: Any) -> None:
        self.tell(run, event, ("on_fit_start",), ("on_train_start",))

    def tell(self, run: Run, event: Any, *calls: Any) -> None:
        """Calls methods, each a name and its arguments after trainer and module."""
        self.trainer.enter(run, event)
        try:
            for method, *arguments in calls:
                call(self.own, method, self.trainer, self.trainer.lightning_module, *arguments)
        finally:
            self.trainer.enter(None, event)

    def on_setup(self, run: Run, event: Any) -> None:
        super().on_setup(run, event)
        self.trainer.describe(run)
        self.tell(run, event, ("setup", str(getattr(self.trainer.state.fn, "value", self.trainer.state.fn))))

    def save_state(self) -> Any:
        """What ``state_dict`` gives, if it gives something."""
        own = self.own.state_dict() if hasattr(self.own, "state_dict") else None
        return {"state_dict": _plain(own)} if own else {"attributes": super().save_state()}

    def restore(self) -> None:
        loaded, self._loaded = self._loaded or {}, loaded_attributes(self._loaded)
        if "state_dict" in loaded and hasattr(self.own, "load_state_dict"):
            self.own.load_state_dict(loaded["state_dict"])
        super().restore()


def loaded_attributes(state: Any) -> Dict[str, Any]:
    """The attributes of a saved state."""
    found: Dict[str, Any] = (state or {}).get("attributes") or {}
    return found


def _plain(value: Any) -> Any:
    """A state without tensors of one number, which become numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _hook(*methods: str) -> Any:
    def hook(self: Lightning, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        self.tell(run, event, *((method,) for method in methods))

    return hook


def _batches(method: str, outputs: bool) -> Any:
    """A hook of batches: with outputs at their end, whose index counts from 0."""

    def hook(self: Lightning, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        index = (event.batch if hasattr(event, "batch") else event.step) - 1
        given: List[Any] = [Missing("outputs")] if outputs else []
        # Predictions and validations have several loaders in Lightning; here there is one at a time.
        self.tell(run, event, (method.replace("validation", _stage(event)), *given, Missing("batch"), index))

    return hook


def _stage(event: Any) -> str:
    return "test" if getattr(event, "split", "") == "test" else "validation"


def _evaluation(*methods: str) -> Any:
    def hook(self: Lightning, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        self.tell(run, event, *((method.replace("validation", _stage(event)),) for method in methods))

    return hook


def _error(self: Lightning, run: Run, event: Any) -> None:
    error = RuntimeError(f"{event.by} failed in {event.hook}: {event.message}")
    self.tell(run, event, ("on_exception", error))


def _teardown(self: Lightning, run: Run, event: Any) -> None:
    self.tell(run, event, ("teardown", "fit"))


def adapt(kind: type) -> Type[Callback]:
    """A class with the methods of a Lightning callback as a callback of the host.

    One that names ``should_stop`` runs inline, so that the stop comes before the next step; any other one in the background.
    """
    evaluation = {
        "eval_start": ("on_validation_start", "on_validation_epoch_start"),
        "eval_end": ("on_validation_epoch_end", "on_validation_end"),
    }
    candidates: Dict[str, Any] = {
        "epoch_start": (["on_train_epoch_start"], _hook("on_train_epoch_start")),
        "epoch_end": (["on_train_epoch_end"], _hook("on_train_epoch_end")),
        "trained": (["on_train_end", "on_fit_end"], _hook("on_train_end", "on_fit_end")),
        "step_start": (["on_train_batch_start"], _batches("on_train_batch_start", False)),
        "step_end": (["on_train_batch_end"], _batches("on_train_batch_end", True)),
        "eval_step_start": (_stages("on_validation_batch_start"), _batches("on_validation_batch_start", False)),
        "eval_step_end": (_stages("on_validation_batch_end"), _batches("on_validation_batch_end", True)),
        "predict_start": (
            ["on_predict_start", "on_predict_epoch_start"],
            _hook("on_predict_start", "on_predict_epoch_start"),
        ),
        "predict_step": (["on_predict_batch_end"], _batches("on_predict_batch_end", True)),
        "predict_end": (["on_predict_epoch_end", "on_predict_end"], _hook("on_predict_epoch_end", "on_predict_end")),
        "error": (["on_exception"], _error),
        "teardown": (["teardown"], _teardown),
    }
    for event, methods in evaluation.items():
        candidates[event] = ([name for method in methods for name in _stages(method)], _evaluation(*methods))
    hooks = {event: hook for event, (methods, hook) in candidates.items() if has_any(kind, methods)}
    return subclass(kind, Lightning, hooks, dispatch="inline" if mentions(kind, "should_stop") else "background")


def _stages(method: str) -> List[str]:
    return [method, method.replace("validation", "test")]
