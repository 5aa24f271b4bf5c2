"""The services of the host during a hook."""

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from . import _messagepack
from ._services import SERVICES
from .errors import HostError, NoValueError, StaleError
from .tensors import Hook, Tensor, tensors_of
from .values import (
    Action,
    ArrayPoint,
    CheckpointWritten,
    ConsoleLine,
    HookTime,
    ParameterGroup,
    Point,
    Record,
    RecordValue,
    RunInfo,
    Span,
    TensorInfo,
    WeightsInfo,
    fields_of,
    record_message,
    record_of,
    run_info_of,
)

Arrays = Union[Mapping[str, Any], Iterable[Tensor]]
"""Tensors for the host: a map from names to arrays of NumPy, PyTorch or ``array``, or tensors with names."""


class Link:
    """What carries calls to the host: a socket, or a fake host."""

    def call(
        self, ticket: int, service: int, payload: bytes, tensors: Sequence[Tensor], hook: Hook
    ) -> Tuple[bytes, List[Tensor]]:
        """Calls a service; a failure of it is a :class:`~host_plugin.HostError`."""
        raise NotImplementedError

    def call_remote(self, ticket: int, service: int, payload: bytes) -> bytes:
        """The same for a remote, from any thread."""
        raise NotImplementedError


class Run:
    """The run, during one hook: metrics, records, controls, tensors, and the other services.

    Each call asks the host; what you do not read costs nothing. It ends with its hook and belongs to the hook's thread: other
    threads need :meth:`remote`.

    Every method may raise :class:`~host_plugin.HostError`; its subclasses say why. A callback in the background is answered from
    what was copied with the event, and what it asks for is done before the next event of the run; the methods that need the
    training thread say so below (*inline*).
    """

    __slots__ = ("_link", "_ticket", "_hook")

    def __init__(self, link: Link, ticket: int) -> None:
        self._link = link
        self._ticket = ticket
        self._hook = Hook()

    def _end(self) -> None:
        """The hook has returned: nothing may be asked any more."""
        self._hook.is_over = True

    def _answer(self, service: str, request: Any = None, tensors: Sequence[Tensor] = ()) -> Tuple[bytes, List[Tensor]]:
        if self._hook.is_over:
            raise StaleError("the run was used after its hook had returned; other threads need `run.remote()`")
        payload = b"" if request is None else _messagepack.encode(request)
        return self._link.call(self._ticket, SERVICES[service].number, payload, tensors, self._hook)

    def _call(self, service: str, request: Any = None) -> Any:
        payload, _ = self._answer(service, request)
        return _messagepack.decode(payload) if payload else None

    # --- the run

    def info(self) -> RunInfo:
        """The instance's name, the run folder, the run file, …."""
        return run_info_of(self._call("run_info"))

    def option(self, name: str) -> Any:
        """One option of the instance, or its default; ``a.b`` is ``b`` in the table ``a``."""
        return self._call("option", {"name": name})

    # --- metrics, records, history

    def metric(self, name: str) -> float:
        """The latest value of a metric.

        Raises:
            NoSuchNameError: the run has no metric of that name; the message has the nearest ones.
            NoValueError: it has one that has no value yet.
        """
        return float(self._call("metric", {"name": name}))

    def latest_metric(self, name: str) -> Optional[float]:
        """The latest value of a metric, or ``None`` if it has none yet."""
        try:
            return self.metric(name)
        except NoValueError:
            return None

    def metrics(self) -> Dict[str, float]:
        """The latest value of each metric."""
        return dict(self._call("metrics"))

    def metric_points(self) -> Dict[str, Point]:
        """The latest value of each metric, with the position at which it was measured."""
        return {name: fields_of(Point, point) for name, point in self._call("metric_points").items()}

    def current_metrics(self, global_step: int) -> Dict[str, float]:
        """The metrics that hold at ``global_step``, at which the run is: those of evaluated splits only if they were measured
        there, since others are of other weights."""
        data = self.info().data
        points = self.metric_points().items()
        return {
            name: point.value for name, point in points if point.global_step == global_step or not data.is_evaluated(name)
        }

    def metrics_of_step(self, global_step: int) -> Dict[str, float]:
        """The metrics that were put at ``global_step``, at which the run is; none that is still being averaged."""
        known = set(self.history_names())
        found = {}
        for name, point in self.metric_points().items():
            if point.global_step == global_step and name in known:
                put = self.history_latest(name)
                if put.global_step == global_step:
                    found[name] = put.value
        return found

    def weights_info(self) -> WeightsInfo:
        """After which step the weights of the model were those of the training, and what was measured of them."""
        return fields_of(WeightsInfo, self._call("weights_info"))

    def put_metric(self, name: str, value: float) -> None:
        """Puts a metric: it is part of the history. Declare it in ``produces``, so that others can wait for it."""
        self._call("metric_put", {"name": name, "value": float(value)})

    def put_record(self, name: str, value: Union[RecordValue, float, str]) -> None:
        """Puts a record for the monitors: one of :mod:`host_plugin.values`, a number (a scalar) or text."""
        self._call("record_put", record_message(name, value))

    def current_record(self) -> Record:
        """In ``on_record``: the record."""
        return record_of(self._call("record"))

    def history_names(self) -> List[str]:
        """The names in the history."""
        return list(self._call("history_names"))

    def history(self, name: str) -> List[Point]:
        """All values of a metric so far, oldest first."""
        return [fields_of(Point, point) for point in self._call("history_series", {"name": name})]

    def history_latest(self, name: str) -> Point:
        """The newest value of a metric in the history; never the running one of an epoch that is not over."""
        return fields_of(Point, self._call("history_latest", {"name": name}))

    def history_with_prefix(self, prefix: str) -> Dict[str, List[Point]]:
        """All values so far of the metrics whose names begin with ``prefix``, such as ``val_``."""
        arrays = self.latest_arrays()
        names = [name for name in self.history_names() if name.startswith(prefix) and name not in arrays]
        return {name: self.history(name) for name in names}

    def remove_history(self, name: str) -> None:
        """Forgets every value or array of a name, and its latest value. A name without any is no error."""
        self._call("history_remove", {"name": name})

    def history_arrays(self, name: str) -> List[ArrayPoint]:
        """All arrays of a name so far, oldest first."""
        return [fields_of(ArrayPoint, point) for point in self._call("history_arrays", {"name": name})]

    def latest_arrays(self) -> Dict[str, ArrayPoint]:
        """The latest array of each series of arrays, such as a confusion matrix."""
        return {name: fields_of(ArrayPoint, point) for name, point in self._call("latest_arrays").items()}

    def put_array(self, name: str, shape: Sequence[int], values: Iterable[float]) -> None:
        """Puts an array into the history; the last dimension of ``values`` is the fastest."""
        request = {"name": name, "shape": list(shape), "values": [float(value) for value in values]}
        self._call("array_put", request)

    def evaluate(self, expression: str, variables: Optional[Mapping[str, float]] = None) -> Union[bool, float, str]:
        """The value of an expression now, in the language of the run file's ``if``. ``variables`` are names of your own in it."""
        value = self._evaluate(expression, variables, False)
        return float(value) if type(value) is int else value

    def evaluate_number(self, expression: str, variables: Optional[Mapping[str, float]] = None) -> float:
        """The value of an expression that gives a number. It is NaN if a metric in it has no value yet."""
        value = self.evaluate(expression, variables)
        if not isinstance(value, float):
            raise HostError(f"`{expression}` does not give a number")
        return value

    def evaluate_actions(self, actions: str, variables: Optional[Mapping[str, float]] = None) -> List[Action]:
        """What actions such as ``stop('done'); put('doubled', 2 * val_loss)`` ask for now, in order. Nothing is done yet."""
        found = self._evaluate(actions, variables, True)
        if not isinstance(found, list):
            raise HostError(f"`{actions}` does not give actions")
        return [Action(name, dict(fields)) for action in found for name, fields in action.items()]

    def _evaluate(self, expression: str, variables: Optional[Mapping[str, float]], actions: bool) -> Any:
        named = {name: float(value) for name, value in (variables or {}).items()}
        return self._call("evaluate", {"expression": expression, "variables": named, "actions": actions})

    # --- hyper-parameters and controls

    def hyper_parameters(self) -> List[ParameterGroup]:
        """The optimizer's parameter groups with their hyper-parameters."""
        return [fields_of(ParameterGroup, group) for group in self._call("hyper_parameters")]

    def set_hyper_parameter(self, name: str, value: float, group: Optional[str] = None) -> None:
        """Sets a hyper-parameter of ``group``, or of every group that has it. From then on this instance owns it: the host's
        schedule no longer changes it, also after a resume."""
        self._call("hyper_parameter_set", {"group": group, "name": name, "value": float(value)})

    def request(self, action: str, reason: str = "") -> None:
        """Asks the loop for something, at its next safe point: ``stop``, ``end_epoch``, ``skip_update``, ``evaluate``,
        ``checkpoint``, ``pause`` or ``resume``. ``reason`` is shown to people."""
        self._call("control", {"action": action, "reason": reason})

    def stop(self, reason: str = "") -> None:
        """Asks for the end of the run, which then counts as stopped, not as failed."""
        self.request("stop", reason)

    def end_epoch(self, reason: str = "") -> None:
        """Ends the epoch after this step; its evaluation still comes."""
        self.request("end_epoch", reason)

    def skip_update(self, reason: str = "") -> None:
        """In ``on_gradients``, *inline*: leaves out this step's update."""
        self.request("skip_update", reason)

    def checkpoint(self, reason: str = "") -> None:
        """Asks for a checkpoint at the next safe point."""
        self.request("checkpoint", reason)

    # --- tensors

    def list(self, set: str) -> List[TensorInfo]:
        """Names, shapes and element types of a set: ``parameters``, ``buffers``, ``gradients``, ``optimizer``, ``batch``,
        ``outputs``, ``taps``, ``event`` or ``copy:NAME``."""
        return [fields_of(TensorInfo, info) for info in self._call("tensor_list", {"set": set, "names": []})]

    def tensors(self, set: str) -> Dict[str, Tensor]:
        """All tensors of a set, by name, in the model's order: lent, not copied.

        In the background, name the set in ``needs``: only then it is copied with the event.
        """
        _, tensors = self._answer("tensor_read", {"set": set, "names": []})
        return {tensor.name: tensor for tensor in tensors}

    def tensor(self, set: str, name: str) -> Tensor:
        """One tensor of a set: lent, not copied."""
        _, tensors = self._answer("tensor_read", {"set": set, "names": [name]})
        if not tensors:
            raise HostError(f"the host gave no tensor `{name}`")
        return tensors[-1]

    def to_host(self, tensor: Tensor) -> Tensor:
        """The tensor on the CPU: as it is, since those of a process of its own lie there."""
        return tensor

    def write(self, set: str, tensors: Arrays) -> None:
        """*Inline*: writes tensors of a set, by their names. Declare it in ``needs``, with ``write=True``.

        Weights may be written when no step is in progress: not between ``step_start`` and ``step_end``. With another shape or
        element type, or an unknown name, nothing is written.
        """
        given = tensors_of(tensors)
        self._answer("tensor_write", {"set": set, "names": [tensor.name for tensor in given]}, given)

    def copy_weights(self, name: str, action: str) -> None:
        """*Inline*: takes, restores or drops (``take``, ``restore``, ``drop``) a named copy of the weights, kept by the host; the
        set ``copy:NAME`` reads it, and :meth:`measure` measures it."""
        self._call("weights_copy", {"name": name, "action": action})

    def copy_training_state(self, name: str, action: str) -> None:
        """*Inline*: the same for the whole training state: weights, optimizer and random generators."""
        self._call("training_state_copy", {"name": name, "action": action})

    def tap(self, name: str, node: str, of: str = "activation", reduce: str = "whole") -> None:
        """In ``on_setup``, *inline*: asks for a value to be fetched with each step, into the set ``taps``.

        ``of`` is ``activation`` or ``gradient``; ``reduce`` is ``whole``, ``mean``, ``norm``, ``min_max``, ``histogram`` or
        ``non_finite``.
        """
        self._call("tap", {"name": name, "node": node, "of": of, "reduce": reduce})

    def loss(self) -> float:
        """The loss of the current step or evaluation batch; waits for the device."""
        return float(self._call("loss"))

    # --- the model and the data

    def graph(self) -> Dict[str, Any]:
        """The model's graph: ``inputs``, ``nodes`` and ``output``; see ``plugin_api::graph``."""
        payload, _ = self._answer("graph")
        found: Dict[str, Any] = json.loads(payload.decode("utf-8"))
        return found

    def predict(self, inputs: Any, nodes: Sequence[str] = ()) -> Dict[str, Tensor]:
        """Outputs in inference mode: the tensor ``outputs``, then the values of ``nodes``.

        ``inputs`` is one array, or a map for a model that takes several inputs. In the background, name ``parameters`` and
        ``buffers`` in ``needs``.
        """
        given = tensors_of(inputs if isinstance(inputs, Mapping) else {"inputs": inputs})
        _, tensors = self._answer("predict", {"split": None, "batches": 0, "nodes": list(nodes)}, given)
        return {tensor.name: tensor for tensor in tensors}

    def predict_split(self, split: str, batches: int, nodes: Sequence[str] = ()) -> Dict[str, Tensor]:
        """The same for the first ``batches`` batches of a split: ``outputs``, ``targets`` and the values of ``nodes``."""
        _, tensors = self._answer("predict", {"split": split, "batches": batches, "nodes": list(nodes)})
        return {tensor.name: tensor for tensor in tensors}

    def measure(
        self, split: str, metrics: Sequence[str] = (), weights: Optional[str] = None, batches: Optional[int] = None
    ) -> Dict[str, float]:
        """*Inline*: metrics over a split, or its first ``batches`` batches, of the model as it is or of a named copy of its
        weights; sends no events and puts no metric."""
        request = {"split": split, "metrics": list(metrics), "weights": weights, "batches": batches}
        return dict(self._call("measure", request))

    def open_split(self, name: str, path: str) -> None:
        """In ``on_setup``, *inline*: reads other data as the run's own was read, and adds it as the split ``name``."""
        self._call("open_split", {"name": name, "path": str(path)})

    def freeze(self, patterns: Sequence[str], moving_statistics: bool = False) -> None:
        """*Inline*: freezes the parameters that ``patterns`` fit, in which ``*`` stands for any text."""
        request = {"patterns": list(patterns), "frozen": True, "moving_statistics": moving_statistics}
        self._call("freeze", request)

    def unfreeze(self, patterns: Sequence[str]) -> None:
        """*Inline*: lets the parameters that ``patterns`` fit learn again."""
        self._call("freeze", {"patterns": list(patterns), "frozen": False, "moving_statistics": False})

    def limit_batches(self, split: str, batches: Optional[int]) -> None:
        """*Inline*: takes only the first ``batches`` of a split from now on; ``None`` takes all again."""
        self._call("limit_batches", {"split": split, "batches": batches})

    def recalibrate_batch_norm(self, split: str, batches: int) -> None:
        """*Inline*: estimates the batch-norm statistics again, as averages over ``batches`` batches of a split."""
        self._call("recalibrate_batch_norm", {"split": split, "batches": batches})

    def batch(self, split: str, index: int) -> Tuple[Tensor, Tensor]:
        """A batch of a split, in the split's own order: inputs and targets."""
        _, tensors = self._answer("batch", {"split": split, "index": index, "all": False})
        if len(tensors) != 2:
            raise HostError("the host gave no batch")
        return tensors[0], tensors[1]

    def whole_batch(self, split: str, index: int) -> Dict[str, Tensor]:
        """The same with every input of a model that takes several, by name."""
        _, tensors = self._answer("batch", {"split": split, "index": index, "all": True})
        return {tensor.name: tensor for tensor in tensors}

    def train_steps(self, steps: int, first: int = 0) -> List[float]:
        """*Inline*: trains ``steps`` updates from the batch ``first`` on, outside the run's history, and gives their losses."""
        return [float(loss) for loss in self._call("train_steps", {"steps": steps, "first": first})]

    # --- output

    def emit(self, name: str, payload: bytes = b"", tensors: Arrays = ()) -> None:
        """Sends a custom event, delivered once this hook has returned; listeners read the tensors from the set ``event``."""
        self._answer("emit", {"name": name, "payload": bytes(payload)}, tensors_of(tensors))

    def write_checkpoint(self, path: str) -> CheckpointWritten:
        """In ``on_checkpoint``: writes the checkpoint, completely or not at all. In the background, name ``training_state`` in
        ``needs``."""
        return fields_of(CheckpointWritten, self._call("write_checkpoint", {"path": str(path)}))

    def queue_checkpoint(self, path: str, instead_of: Sequence[str] = ()) -> List[str]:
        """In ``on_checkpoint``, *inline*: copies the checkpoint and writes it while the training goes on. Those of
        ``instead_of`` that wait are left out, and returned."""
        return list(self._call("queue_checkpoint", {"path": str(path), "instead_of": list(instead_of)}))

    def publish(self, kind: str, path: str) -> None:
        """Announces something published: it is listed in ``status.json``, and an ``artifact`` event follows."""
        self._call("artifact", {"kind": kind, "path": str(path)})

    def console_line(self, text: str) -> None:
        """Prints a line on the host's console; only the host writes to the terminal."""
        self._call("console_line", {"text": text})

    def console_status(self, name: str, text: str, progress: Optional[float] = None) -> None:
        """Shows a status line, with a bar if there is a progress from 0 to 1; an empty text removes it."""
        self._call("console_status", {"name": name, "text": text, "progress": progress})

    def console_lines(self, after: int = 0) -> List[ConsoleLine]:
        """The newest lines of the console after the number ``after``, oldest first."""
        return [fields_of(ConsoleLine, line) for line in self._call("console_lines", {"after": after})]

    def hook_times(self) -> List[HookTime]:
        """The cost of each hook of each callback, most expensive first."""
        return [fields_of(HookTime, time) for time in self._call("hook_times")]

    def profile(self, record: str) -> List[Span]:
        """*Inline*: what was recorded of the time of steps since the last call; records ``off``, ``phases`` or ``operators`` from
        now on."""
        return [fields_of(Span, span) for span in self._call("profile", {"record": record})]

    def keep_alive(self) -> None:
        """Says that this hook waits on purpose: ``hook_warning`` and ``hook_timeout`` count from now on again."""
        self._call("keep_alive")

    def remote(self) -> "Remote":
        """A handle for other threads, until ``train_end``: controls, records and read-only metrics."""
        return Remote(self._link, int(self._call("remote")))


class Remote:
    """Controls, records and read-only metrics from any thread, until ``train_end``; after that every call is an error.

    What it asks for takes effect at the next event of the run.
    """

    __slots__ = ("_link", "_ticket")

    def __init__(self, link: Link, ticket: int) -> None:
        self._link = link
        self._ticket = ticket

    def _call(self, service: str, request: Any = None) -> Any:
        payload = b"" if request is None else _messagepack.encode(request)
        reply = self._link.call_remote(self._ticket, SERVICES[service].number, payload)
        return _messagepack.decode(reply) if reply else None

    def request(self, action: str, reason: str = "") -> None:
        """Asks the loop for something, at its next safe point; all but ``skip_update``."""
        self._call("control", {"action": action, "reason": reason})

    def stop(self, reason: str = "") -> None:
        """Asks for the end of the run."""
        self.request("stop", reason)

    def put_record(self, name: str, value: Union[RecordValue, float, str]) -> None:
        """Puts a record for the monitors."""
        self._call("record_put", record_message(name, value))

    def metrics(self) -> Dict[str, float]:
        """The latest value of each metric."""
        return dict(self._call("metrics"))

    def metric(self, name: str) -> float:
        """The latest value of a metric."""
        return float(self._call("metric", {"name": name}))
