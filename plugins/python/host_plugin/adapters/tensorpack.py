"""Callbacks with tensorpack's method names.

``_setup_graph``, ``_before_train``, ``_before_epoch``, ``_trigger_step``, ``_after_epoch``, ``_trigger_epoch`` (or
``_trigger``) and ``_after_train`` are called; epochs and steps count from 1, as in tensorpack. The instance has ``trainer``,
``epoch_num``, ``global_step`` and ``local_step``; ``trainer.monitors`` offers ``put_scalar``, ``put_image``, ``get_latest`` and
``get_history``. A class of the name ``StopTraining`` that is raised ends the run. Graph, session and the values of runs are not
offered.
"""

from typing import Any, Dict, List, Optional, Type

from ..callback import Callback
from ..run import Run
from ..values import Image, Scalar
from ._base import Adapted, Missing, Stub, call, has, has_any, mentions, subclass


class Monitors(Stub):
    """``trainer.monitors``."""

    _what = "monitors"
    _offers = "`put_scalar`, `put_image`, `get_latest` and `get_history`"

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    def put_scalar(self, name: str, value: Any) -> None:
        """Puts a scalar for the run's monitors."""
        self._trainer.run().put_record(name, Scalar(float(value)))
        self._trainer.own.setdefault(name, []).append(float(value))

    def put_image(self, name: str, image: Any) -> None:
        """Puts a picture, an array of bytes with the shape ``[height, width]`` or ``[height, width, channels]``."""
        self._trainer.run().put_record(name, Image.of(image))

    def get_latest(self, name: str) -> float:
        """The latest value of a metric of the run, or of a scalar that this callback put."""
        values = self._trainer.own.get(name)
        return values[-1] if values else self._trainer.run().metric(name)

    def get_history(self, name: str) -> List[Any]:
        """Pairs of global step and value of a metric of the run."""
        return [(point.global_step, point.value) for point in self._trainer.run().history(name)]


class Trainer(Stub):
    """The trainer, as far as the host offers it."""

    _what = "trainer"
    _offers = "`monitors`, `epoch_num`, `global_step`, `local_step`, `steps_per_epoch`, `max_epoch` and `starting_epoch`"
    is_chief = True

    def __init__(self) -> None:
        self.monitors = Monitors(self)
        self.epoch_num = self.global_step = self.local_step = 0
        self.steps_per_epoch = self.max_epoch = 0
        self.starting_epoch = 1
        self.own: Dict[str, List[float]] = {}
        self._run: Optional[Run] = None

    @property
    def loop(self) -> "Trainer":
        """The positions, as in ``trainer.loop``."""
        return self

    def enter(self, run: Optional[Run], event: Any) -> None:
        """A hook begins or, without a run, ends."""
        self._run = run
        if run is not None:
            self.epoch_num, self.global_step, self.local_step = event.epoch, event.global_step, event.step

    def run(self) -> Run:
        """The run of the hook in progress."""
        if self._run is None:
            raise RuntimeError("the trainer was used outside of a method of the callback, such as on another thread")
        return self._run


class Tensorpack(Adapted):
    """Calls the methods of a tensorpack callback."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.trainer = Trainer()

    def on_setup(self, run: Run, event: Any) -> None:
        super().on_setup(run, event)
        info = run.info()
        self.trainer.steps_per_epoch = info.steps_per_epoch
        self.trainer.max_epoch = info.epochs or -(-info.total_steps // max(info.steps_per_epoch, 1))
        self.own.trainer, self.own.graph = self.trainer, Missing("graph")
        self.tell(run, event, "_setup_graph")

    def begin(self, run: Run, event: Any) -> None:
        self.trainer.starting_epoch = event.epoch + 1
        self.tell(run, event, "_before_train")

    def tell(self, run: Run, event: Any, *methods: str) -> None:
        """Calls methods, with the positions of the event."""
        self.trainer.enter(run, event)
        for name in ("epoch_num", "global_step", "local_step"):
            try:
                setattr(self.own, name, getattr(self.trainer, name))
            except AttributeError:
                # A property of tensorpack's base class, which asks the trainer.
                pass
        try:
            for method in methods:
                call(self.own, method)
        except Exception as error:
            if type(error).__name__ != "StopTraining":
                raise
            run.stop(str(error) or f"{self.instance} has raised `StopTraining`")
        finally:
            self.trainer.enter(None, event)

    def save_state(self) -> Any:
        """The attributes of the instance without the positions."""
        state = super().save_state()
        return {name: value for name, value in state.items() if name not in ("epoch_num", "global_step", "local_step")}


def _hook(*methods: str) -> Any:
    def hook(self: Tensorpack, run: Run, event: Any) -> None:
        self.begin_late(run, event)
        self.tell(run, event, *methods)

    return hook


def adapt(kind: type) -> Type[Callback]:
    """A class with tensorpack's method names as a callback of the host.

    One that raises ``StopTraining`` runs inline, so that the stop comes before the next step; any other one in the background.
    """
    trigger = "_trigger_epoch" if has(kind, "_trigger_epoch") else "_trigger"
    candidates: Dict[str, Any] = {
        "epoch_start": (["_before_epoch"], _hook("_before_epoch")),
        "step_end": (["_trigger_step"], _hook("_trigger_step")),
        "epoch_end": (["_after_epoch", trigger], _hook("_after_epoch", trigger)),
        "trained": (["_after_train"], _hook("_after_train")),
    }
    hooks = {event: hook for event, (methods, hook) in candidates.items() if has_any(kind, methods)}
    return subclass(kind, Tensorpack, hooks, dispatch="inline" if mentions(kind, "StopTraining") else "background")
