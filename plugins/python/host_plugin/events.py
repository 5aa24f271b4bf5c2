"""The arguments of hooks. What costs a copy or waits for the device is fetched from the run on demand."""

from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple


class At(NamedTuple):
    """An event with only the run's position."""

    epoch: int = 0
    """The epoch in progress, from 1; 0 before the first."""
    step: int = 0
    """The step within the epoch, from 1; 0 before the first."""
    global_step: int = 0
    """Optimizer updates since the run began, from 1; 0 before the first."""
    samples: int = 0
    """Training samples seen since the run began."""


class TrainEnd(NamedTuple):
    """The end of the training."""

    epoch: int
    step: int
    global_step: int
    samples: int
    outcome: str
    """``finished``, ``stopped``, ``failed`` or ``interrupted``."""
    reason: str
    """The reason, if one was given."""


class Evaluation(NamedTuple):
    """An evaluation of a split, or a batch of one."""

    epoch: int
    step: int
    global_step: int
    samples: int
    split: str
    """The split's name."""
    mid_epoch: bool
    """Whether it interrupts an epoch."""
    batch: int
    """The batch within the evaluation, from 1; 0 at its start and end."""
    batches: int
    """How many batches it has."""


class Trigger(NamedTuple):
    """The run's schedule says that it is time."""

    epoch: int
    step: int
    global_step: int
    samples: int
    cause: str
    """``epoch``, ``step``, ``time``, ``at``, ``end``, or ``best <metric>``."""


class RecordPut(NamedTuple):
    """Somebody put a record; ``run.current_record()`` fetches it."""

    epoch: int
    step: int
    global_step: int
    samples: int
    name: str
    """Its name."""
    author: str
    """The instance that put it."""
    type_name: str
    """``scalar``, ``histogram``, ``image``, ``text``, ``table``, ``curve``, ``graph``, ``hyper_parameters``, or a newer type."""
    scalar: Optional[float]
    """The value of a scalar."""


class Custom(NamedTuple):
    """A custom event of a plugin or of the program that embeds the host; its tensors are the set ``event``."""

    epoch: int
    step: int
    global_step: int
    samples: int
    name: str
    """Its name."""
    author: str
    """The instance that sent it."""
    payload: bytes
    """What it carries."""


class Checkpoint(NamedTuple):
    """A checkpoint is taken; ``run.write_checkpoint()`` writes it."""

    epoch: int
    step: int
    global_step: int
    samples: int
    asked_by: str
    """The instance that asked for it, or ``host``."""
    reason: str
    """Why."""


class CheckpointWritten(NamedTuple):
    """A checkpoint that ``run.queue_checkpoint()`` took is on the disk, or could not be written."""

    epoch: int
    step: int
    global_step: int
    samples: int
    path: str
    """Its path, as it was queued."""
    bytes: int
    """The size of its files; 0 if it could not be written."""
    error: Optional[str]
    """Why it could not be written."""


class ArtifactPublished(NamedTuple):
    """Something was published."""

    epoch: int
    step: int
    global_step: int
    samples: int
    kind: str
    """What it is."""
    path: str
    """Where it is."""
    author: str
    """The instance that published it."""


class Stopping(NamedTuple):
    """A stop was asked for."""

    epoch: int
    step: int
    global_step: int
    samples: int
    by: str
    """The instance that asked, or ``host`` for a signal."""
    reason: str
    """Why."""


class Failed(NamedTuple):
    """Something failed."""

    epoch: int
    step: int
    global_step: int
    samples: int
    by: str
    """The instance that failed, or ``host``."""
    hook: str
    """In which hook."""
    message: str
    """The message."""


NUMBERS: Dict[str, int] = {
    "setup": 1,
    "load_state": 2,
    "save_state": 3,
    "train_start": 4,
    "train_end": 5,
    "epoch_start": 6,
    "epoch_trained": 7,
    "epoch_end": 8,
    "step_start": 9,
    "step_end": 10,
    "gradients": 11,
    "eval_start": 12,
    "eval_step_start": 13,
    "eval_step_end": 14,
    "eval_end": 15,
    "predict_start": 16,
    "predict_step": 17,
    "predict_end": 18,
    "export": 19,
    "trigger": 20,
    "record": 21,
    "custom": 22,
    "checkpoint": 23,
    "artifact": 24,
    "stopping": 25,
    "error": 26,
    "teardown": 27,
    "trained": 29,
    "checkpoint_written": 30,
}
"""The number of each event in the host's ABI."""

NAMES: Dict[int, str] = {number: name for name, number in NUMBERS.items()}

_Position = Tuple[int, int, int, int]


def _evaluation(at: _Position, data: Dict[str, Any]) -> Evaluation:
    return Evaluation(
        *at, data.get("split", ""), bool(data.get("mid_epoch")), data.get("batch", 0), data.get("batches", 0)
    )


def _record(at: _Position, data: Dict[str, Any]) -> RecordPut:
    type_name = data.get("third", "")
    return RecordPut(
        *at, data.get("first", ""), data.get("second", ""), type_name, data.get("value") if type_name == "scalar" else None
    )


def _written(at: _Position, data: Dict[str, Any]) -> CheckpointWritten:
    error = data.get("second", "")
    return CheckpointWritten(*at, data.get("first", ""), 0 if error else int(data.get("value", 0)), error or None)


def _texts(event: Any, *fields: str) -> Callable[[_Position, Dict[str, Any]], Any]:
    def make(at: _Position, data: Dict[str, Any]) -> Any:
        return event(*at, *(data.get(field, b"" if field == "bytes" else "") for field in fields))

    return make


_MAKERS: Dict[str, Callable[[_Position, Dict[str, Any]], Any]] = {
    "train_end": _texts(TrainEnd, "first", "second"),
    "trigger": _texts(Trigger, "first"),
    "record": _record,
    "custom": _texts(Custom, "first", "second", "bytes"),
    "checkpoint": _texts(Checkpoint, "first", "second"),
    "checkpoint_written": _written,
    "artifact": _texts(ArtifactPublished, "first", "second", "third"),
    "stopping": _texts(Stopping, "first", "second"),
    "error": _texts(Failed, "first", "second", "third"),
}
for _name in NUMBERS:
    if _name.startswith(("eval_", "predict_")):
        _MAKERS[_name] = _evaluation


def of_message(name: str, message: Dict[str, Any]) -> Any:
    """The argument of the hook for the event ``name``, from the message of the host."""
    at = (
        message.get("epoch", 0),
        message.get("step", 0),
        message.get("global_step", 0),
        message.get("samples", 0),
    )
    make = _MAKERS.get(name)
    if make is None:
        return At(*at)
    (data,) = (message.get("data") or {"texts": {}}).values()
    return make(at, data)
