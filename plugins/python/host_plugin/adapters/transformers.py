"""Callbacks of Hugging Face: classes with the methods of ``transformers.TrainerCallback``.

Each is called with ``args``, ``state`` and ``control``. ``state`` has ``epoch`` (a fraction), ``global_step``, ``max_steps``,
``num_train_epochs``, ``log_history``, ``best_metric``, ``is_world_process_zero`` and ``is_local_process_zero``; ``args`` has
``output_dir`` and ``logging_dir`` (the run folder), ``num_train_epochs``, ``max_steps``, ``eval_strategy`` and
``metric_for_best_model`` (``loss``). What a method sets in ``control`` is asked of the run: ``should_training_stop``,
``should_epoch_stop``, ``should_save`` and ``should_evaluate``.

``on_log`` comes after each epoch: first with the metrics of training, then with those of its evaluation, which ``on_evaluate``
gets, too. Their names are Hugging Face's: ``train_loss`` is ``loss``, ``val_loss`` is ``eval_loss``. The model, the tokenizer,
the optimizer and data loaders are not offered.
"""

from typing import Any, Dict, List, Optional, Type

from ..callback import Callback
from ..run import Run
from ._base import Adapted, Missing, Stub, has_any, mentions, subclass, translated

_NAMES = {"train_": "", "val_": "eval_"}
"""What a prefix of the host's metrics is in Hugging Face's logs."""

_CONTROLS = {
    "should_training_stop": "stop",
    "should_epoch_stop": "end_epoch",
    "should_save": "checkpoint",
    "should_evaluate": "evaluate",
}
"""What each flag asks of the run."""


_OTHERS = ("model", "processing_class", "tokenizer", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")
"""What every method gets in Hugging Face, and nothing is offered of."""


class Arguments(Stub):
    """The training arguments, as far as the host has them."""

    _what = "training arguments"
    _offers = "`output_dir`, `logging_dir`, `num_train_epochs`, `max_steps`, `eval_strategy` and `metric_for_best_model`"
    eval_strategy = evaluation_strategy = save_strategy = logging_strategy = "epoch"
    metric_for_best_model = "loss"
    greater_is_better = False
    load_best_model_at_end = True
    logging_first_step = False
    eval_steps = save_steps = logging_steps = 0
    report_to: List[str] = []

    def __init__(self, run: Run) -> None:
        info = run.info()
        self.output_dir = self.logging_dir = info.folder
        self.max_steps = info.total_steps
        self.num_train_epochs = info.epochs or -(-info.total_steps // max(info.steps_per_epoch, 1))
        self.process_index, self.world_size, self.local_rank = info.rank, max(info.world_size, 1), 0
        self.run_name = info.name


class State:
    """The state of the trainer; the names are those of ``transformers.TrainerState``."""

    def __init__(self) -> None:
        self.epoch = 0.0
        self.global_step = 0
        self.max_steps = 0
        self.num_train_epochs = 0
        self.logging_steps = self.eval_steps = self.save_steps = 0
        self.train_batch_size: Optional[int] = None
        self.num_input_tokens_seen = 0
        self.total_flos = 0.0
        self.log_history: List[Dict[str, float]] = []
        self.best_metric: Optional[float] = None
        self.best_global_step: Optional[int] = None
        self.best_model_checkpoint: Optional[str] = None
        self.is_local_process_zero = True
        self.is_world_process_zero = True
        self.is_hyper_param_search = False
        self.trial_name = None
        self.trial_params = None


class Control:
    """What a callback asks for; the names are those of ``transformers.TrainerControl``."""

    def __init__(self) -> None:
        self.should_training_stop = False
        self.should_epoch_stop = False
        self.should_save = False
        self.should_evaluate = False
        self.should_log = False


class Transformers(Adapted):
    """Calls the methods of a TrainerCallback."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.state = State()
        self.control = Control()
        self.args: Any = Missing("training arguments")
        self.steps_per_epoch = 0
        self._others = {name: Missing(name.replace("_", " ")) for name in _OTHERS}

    def on_setup(self, run: Run, event: Any) -> None:
        super().on_setup(run, event)
        info = run.info()
        self.args, self.steps_per_epoch = Arguments(run), info.steps_per_epoch
        self.state.max_steps, self.state.num_train_epochs = self.args.max_steps, self.args.num_train_epochs
        self.state.is_local_process_zero = self.state.is_world_process_zero = info.rank == 0
        self.tell(run, event, "on_init_end")

    def begin(self, run: Run, event: Any) -> None:
        self.control.should_training_stop = False
        self.tell(run, event, "on_train_begin")

    def tell(self, run: Run, event: Any, method: str, **named: Any) -> None:
        """Calls a method, and asks the run for what it sets in ``control``."""
        if not hasattr(self.own, method):
            return
        self.state.global_step = event.global_step
        self.state.epoch = event.global_step / self.steps_per_epoch if self.steps_per_epoch else float(event.epoch)
        before = dict(vars(self.control))
        returned = getattr(self.own, method)(self.args, self.state, self.control, **self._others, **named)
        self.control = returned if returned is not None else self.control
        for flag, action in _CONTROLS.items():
            if getattr(self.control, flag) and not before.get(flag):
                run.request(action, f"{self.instance or type(self).__name__} has set `{flag}`")

    def logged(self, run: Run, event: Any, logs: Dict[str, float]) -> None:
        """Tells of metrics, and keeps them."""
        if logs:
            logs = {**logs, "epoch": event.global_step / self.steps_per_epoch if self.steps_per_epoch else float(event.epoch)}
            self.state.log_history.append({**logs, "step": event.global_step})
            self.tell(run, event, "on_log", logs=logs)

    def evaluated(self, run: Run, event: Any, metrics: Dict[str, float]) -> None:
        """Tells of an evaluation."""
        if metrics:
            self.logged(run, event, metrics)
            self.tell(run, event, "on_evaluate", metrics=metrics)
            loss = metrics.get("eval_loss")
            best = self.state.best_metric
            # As in Hugging Face, the best one is compared with after the callbacks were told.
            if loss is not None and (best is None or loss < best):
                self.state.best_metric, self.state.best_global_step = loss, event.global_step

    def save_state(self) -> Any:
        """The attributes of the instance, and the state of the trainer."""
        kept = {name: getattr(self.state, name) for name in ("log_history", "best_metric", "best_global_step")}
        return {"attributes": super().save_state(), "trainer": kept}

    def restore(self) -> None:
        loaded, self._loaded = self._loaded or {}, (self._loaded or {}).get("attributes")
        for name, value in loaded.get("trainer", {}).items():
            setattr(self.state, name, value)
        super().restore()


def _hook(method: str) -> Any:
    def hook(self: Transformers, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        self.tell(run, event, method)

    return hook


def _epoch_start(self: Transformers, run: Run, event: Any) -> None:
    self.begin_late(run, event)
    self.control.should_epoch_stop = False
    self.tell(run, event, "on_epoch_begin")


def _step_start(self: Transformers, run: Run, event: Any) -> None:
    self.begin_late(run, event)
    for flag in ("should_save", "should_evaluate", "should_log"):
        setattr(self.control, flag, False)
    self.tell(run, event, "on_step_begin")


def _epoch_end(self: Transformers, run: Run, event: Any) -> None:
    self.begin_late(run, event)
    for flag in ("should_save", "should_evaluate", "should_log"):
        setattr(self.control, flag, False)
    self.tell(run, event, "on_epoch_end")
    metrics = translated(run.current_metrics(event.global_step), _NAMES)
    self.logged(run, event, {name: value for name, value in metrics.items() if not name.startswith("eval_")})
    self.evaluated(run, event, {name: value for name, value in metrics.items() if name.startswith("eval_")})


def _eval_end(self: Transformers, run: Run, event: Any) -> None:
    # The evaluation of an epoch is told of at its end.
    if event.mid_epoch and event.split == "val":
        metrics = translated(run.current_metrics(event.global_step), _NAMES)
        self.evaluated(run, event, {name: value for name, value in metrics.items() if name.startswith("eval_")})


def adapt(kind: type) -> Type[Callback]:
    """A class with the methods of a TrainerCallback as a callback of the host.

    One that sets flags of ``control`` runs inline, so that what they ask for comes before the next step; any other one in the
    background.
    """
    candidates: Dict[str, Any] = {
        "epoch_start": (["on_epoch_begin"], _epoch_start),
        "epoch_end": (["on_epoch_end", "on_log", "on_evaluate"], _epoch_end),
        "step_start": (["on_step_begin"], _step_start),
        "step_end": (["on_step_end"], _hook("on_step_end")),
        "gradients": (["on_pre_optimizer_step"], _hook("on_pre_optimizer_step")),
        "eval_step_end": (["on_prediction_step"], _hook("on_prediction_step")),
        "eval_end": (["on_log", "on_evaluate"], _eval_end),
        "checkpoint_written": (["on_save"], _hook("on_save")),
        "trained": (["on_train_end"], _hook("on_train_end")),
    }
    hooks = {event: hook for event, (methods, hook) in candidates.items() if has_any(kind, methods)}
    dispatch = "inline" if mentions(kind, *_CONTROLS) else "background"
    return subclass(kind, Transformers, hooks, dispatch=dispatch)
