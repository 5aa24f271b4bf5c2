"""A fake host, to test a callback without a training, a model or libtorch.

    host = FakeHost(StopAtGoal, goal=0.5)

    host.put_metric("val_loss", 0.7)
    host.epoch_end(1)
    assert host.stopped is None

    host.put_metric("val_loss", 0.4)
    host.epoch_end(2)
    assert host.stopped == "the goal is reached"

As with a real host, an event that the callback has no method for does not reach it, what a service refuses in a hook or in the
background is refused, and a run or a tensor that is used after its hook is an error. An exception of a hook reaches the test.

What it does not do: it trains nothing, sends no event by itself, checks no options against their schema, and applies no schedule
and no failure policy.
"""

import difflib
import json
import os
import shutil
import tempfile
import weakref
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from . import _messagepack, events
from ._services import BUSY, READABLE, SERVICES, WRITABLE
from .callback import Callback, describe, make, method_of
from .errors import HostError, NoSuchNameError, NotAllowedError, NoValueError, StaleError, UnknownError
from .run import Arrays, Link, Run
from .tensors import Hook, Tensor, tensors_of
from .values import ArrayPoint, Point, Record, RunInfo, record_of

_NAMES = {service.number: name for name, service in SERVICES.items()}


class Request(NamedTuple):
    """What a callback asked the loop for."""

    action: str
    """``stop``, ``end_epoch``, ``skip_update``, ``evaluate``, ``checkpoint``, ``pause`` or ``resume``."""
    reason: str
    """Why."""


class Status(NamedTuple):
    """A status line on the console."""

    text: str
    progress: Optional[float]


class Emitted(NamedTuple):
    """A custom event that a callback sent."""

    name: str
    payload: bytes
    tensors: Dict[str, Tensor]


class World:
    """What the services answer from, and what a callback did: the fake host without a callback."""

    def __init__(self) -> None:
        self.info = RunInfo(name="fake", host_version="0", device="cpu", job="train", world_size=1)
        """What ``run.info()`` gives; change it with ``_replace``."""
        self.options: Dict[str, Any] = {}
        self.position = events.At()
        """Where the run is."""
        self.values: Dict[str, Optional[float]] = {}
        """The latest value of each metric; ``None`` for a known one that has none yet."""
        self.history: Dict[str, List[Point]] = {}
        """Every value of each metric."""
        self.arrays: Dict[str, List[ArrayPoint]] = {}
        """Every array."""
        self.groups: Dict[str, Dict[str, float]] = {}
        """The hyper-parameters of each parameter group."""
        self.owners: Dict[str, Dict[str, str]] = {}
        """Who owns which of them."""
        self.tensors: Dict[str, Dict[str, Tensor]] = {}
        """The tensors of each set, by name."""
        self.batches: Dict[str, List[List[Tensor]]] = {}
        """The batches of each split."""
        self.loss: Optional[float] = None
        """What ``run.loss()`` gives."""
        self.graph: Optional[Dict[str, Any]] = None
        """What ``run.graph()`` gives."""
        self.answers: Dict[str, Callable[[Dict[str, Any], List[Tensor]], Any]] = {}
        """What other services answer, by their names: ``predict`` and ``measure`` among them. A function takes the request and
        its tensors; it gives the value of the reply, or tensors for ``predict``."""
        self.current_record: Optional[Dict[str, Any]] = None

        self.requests: List[Request] = []
        """What was asked of the loop."""
        self.records: List[Record] = []
        """The records that were put."""
        self.emitted: List[Emitted] = []
        """The custom events that were sent."""
        self.lines: List[str] = []
        """The lines on the console."""
        self.statuses: Dict[str, Status] = {}
        """The status lines on the console."""
        self.artifacts: List[Tuple[str, str]] = []
        """The kind and the path of what was published."""
        self.checkpoints: List[str] = []
        """The paths of the checkpoints that were written or queued."""
        self.taps: List[Dict[str, Any]] = []
        """The taps that were asked for."""
        self.state: Optional[bytes] = None
        """What was saved last, as bytes."""
        self.asked: List[Tuple[str, Dict[str, Any]]] = []
        """Every call of a service: its name and its request."""
        self.faults: List[Dict[str, str]] = []

    def put_metric(self, name: str, value: float) -> None:
        """Gives a metric a value, at the position of the run."""
        self.values[name] = float(value)
        self.history.setdefault(name, []).append(Point(self.position.epoch, self.position.global_step, float(value)))

    def know_metric(self, name: str) -> None:
        """Lets the run know a metric that has no value yet."""
        self.values.setdefault(name, None)

    def put_hyper_parameter(self, name: str, value: float, group: str = "default") -> None:
        """Gives a parameter group a hyper-parameter."""
        self.groups.setdefault(group, {})[name] = value

    def put_tensors(self, set: str, tensors: Arrays) -> None:
        """Gives a set of tensors, such as ``parameters``, these tensors."""
        self.tensors.setdefault(set, {}).update({tensor.name: tensor.copy() for tensor in tensors_of(tensors)})

    def put_batch(self, split: str, inputs: Any, targets: Any, **others: Any) -> None:
        """Adds a batch to a split."""
        batch = [tensor.copy() for tensor in tensors_of({"inputs": inputs, "targets": targets, **others})]
        self.batches.setdefault(split, []).append(batch)

    @property
    def stopped(self) -> Optional[str]:
        """The reason of the first stop that was asked for."""
        return next((request.reason for request in self.requests if request.action == "stop"), None)

    def requested(self, action: str) -> bool:
        """Whether something was asked of the loop."""
        return any(request.action == action for request in self.requests)

    def metric(self, name: str) -> Optional[float]:
        """The latest value of a metric."""
        return self.values.get(name)

    def hyper_parameter(self, name: str, group: Optional[str] = None) -> Optional[float]:
        """A hyper-parameter of a group, or of the first that has it."""
        groups = self.groups.items()
        return next((values[name] for own, values in groups if name in values and group in (None, own)), None)

    def permit(self, service: str, request: Dict[str, Any], hook: str, dispatch: str, needs: Sequence[Dict[str, Any]]) -> None:
        """Refuses what a real host refuses."""
        rule = SERVICES[service]
        hooks = rule.hooks
        if isinstance(hooks, tuple) and hook not in hooks:
            raise NotAllowedError(f"`{service}` can be called only in {_listed(hooks, 'and')}, not in `{hook}`")
        if hooks == "idle" and hook in BUSY:
            raise NotAllowedError(f"`{service}` cannot be called in `{hook}`, where a step can be in progress")
        self._permit_content(service, request, hook)
        in_background = dispatch == "background"
        if in_background and rule.background == "never":
            message = f"`{service}` needs the training thread: set `dispatch = \"inline\"` for this callback"
            raise NotAllowedError(message)
        if in_background and rule.background == "snapshot":
            copied = {need["what"] for need in needs if need["hook"] in ("", hook)}
            for what in _copies(service, request):
                if what not in copied:
                    raise NotAllowedError(
                        f"`{what}` was not copied for `{hook}`: a callback that reads it in the background must name it in "
                        "`needs`"
                    )

    def _permit_content(self, service: str, request: Dict[str, Any], hook: str) -> None:
        if service == "control" and request["action"] == "skip_update" and hook != "gradients":
            raise NotAllowedError(f"an update can be skipped only in `gradients`, not in `{hook}`")
        if service in ("tensor_list", "tensor_read", "tensor_write"):
            of_set = WRITABLE if service == "tensor_write" else READABLE
            allowed = of_set.get(request["set"])
            if allowed is not None and hook not in allowed:
                done = "written" if service == "tensor_write" else "read"
                raise NotAllowedError(f"`{request['set']}` cannot be {done} in `{hook}`")
        if service.endswith("_copy") and request["action"] == "restore" and hook in BUSY:
            raise NotAllowedError(f"weights cannot be restored in `{hook}`, where a step can be in progress")

    def answer(self, service: str, payload: bytes, tensors: Sequence[Tensor]) -> Tuple[bytes, List[Tensor]]:
        """Answers a call: the bytes of the reply, and its tensors."""
        if service == "save_state":
            self.state = bytes(payload)
            return b"", []
        request = _messagepack.decode(payload) if payload else {}
        self.asked.append((service, request))
        given = self.answers.get(service)
        if given is not None:
            found = given(request, list(tensors))
            return (b"", tensors_of(found)) if service == "predict" else (_messagepack.encode(found), [])
        method = getattr(self, f"_{service}", None)
        if method is None:
            raise HostError(f"the test has given no answer for `{service}`: set `host.answers[\"{service}\"]`")
        reply = method(request, list(tensors))
        if isinstance(reply, _Tensors):
            return b"", reply.tensors
        if isinstance(reply, bytes):
            return reply, []
        return b"" if reply is None else _messagepack.encode(reply), []

    # Each service, by its name: takes the request and its tensors, and gives the value of the reply.

    def _fault(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.faults.append(request)

    def _metric_put(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.put_metric(request["name"], request["value"])

    def _metric(self, request: Dict[str, Any], _: List[Tensor]) -> float:
        value = _find("metric", request["name"], self.values)
        if value is None:
            raise NoValueError(f"the metric `{request['name']}` has no value yet")
        return float(value)

    def _metrics(self, _request: Dict[str, Any], _: List[Tensor]) -> Dict[str, float]:
        return {name: value for name, value in sorted(self.values.items()) if value is not None}

    def _metric_points(self, _request: Dict[str, Any], _: List[Tensor]) -> Dict[str, Any]:
        known = [name for name, value in sorted(self.values.items()) if value is not None]
        return {name: self.history[name][-1]._asdict() for name in known}

    def _record_put(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.records.append(record_of(request))

    def _record(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        return self.current_record

    def _history_names(self, _request: Dict[str, Any], _: List[Tensor]) -> List[str]:
        return [*self.history, *self.arrays]

    def _history_series(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        return [point._asdict() for point in _find("metric", request["name"], self.history)]

    def _history_latest(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        return _find("metric", request["name"], self.history)[-1]._asdict()

    def _history_arrays(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        return [point._asdict() for point in _find("metric", request["name"], self.arrays)]

    def _history_remove(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.history.pop(request["name"], None)
        self.arrays.pop(request["name"], None)
        if request["name"] in self.values:
            self.values[request["name"]] = None

    def _latest_arrays(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        return {name: points[-1]._asdict() for name, points in self.arrays.items()}

    def _array_put(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        size = 1
        for length in request["shape"]:
            size *= length
        if size != len(request["values"]):
            message = f"`{request['name']}` has the shape {request['shape']} but {len(request['values'])} values"
            raise HostError(message)
        point = ArrayPoint(self.position.epoch, self.position.global_step, request["shape"], request["values"])
        self.arrays.setdefault(request["name"], []).append(point)

    def _weights_info(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        step = self.position.global_step
        measured = {name: points[-1].value for name, points in self.history.items() if points[-1].global_step == step}
        return {"epoch": self.position.epoch, "global_step": step, "metrics": measured}

    def _hyper_parameters(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        return [
            {"name": name, "values": values, "owners": self.owners.get(name, {})} for name, values in self.groups.items()
        ]

    def _hyper_parameter_set(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        group, name = request.get("group"), request["name"]
        if group is not None:
            _find("parameter group", group, self.groups)
        wanted = {own: values for own, values in self.groups.items() if group in (None, own) and name in values}
        if not wanted:
            _find("hyper-parameter", name, {known: None for values in self.groups.values() for known in values})
        for own, values in wanted.items():
            values[name] = float(request["value"])
            self.owners.setdefault(own, {})[name] = self.info.instance

    def _control(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.requests.append(Request(request["action"], request.get("reason", "")))

    def _tensor_list(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        found = _find("set", request["set"], self.tensors).values()
        return [{"name": each.name, "shape": list(each.shape), "dtype": each.dtype.name} for each in found]

    def _tensor_read(self, request: Dict[str, Any], _: List[Tensor]) -> "_Tensors":
        found = _find("set", request["set"], self.tensors)
        names = request.get("names") or list(found)
        return _Tensors([_find("tensor", name, found) for name in names])

    def _tensor_write(self, request: Dict[str, Any], tensors: List[Tensor]) -> None:
        found = _find("set", request["set"], self.tensors)
        for tensor in tensors:
            old = _find("tensor", tensor.name, found)
            if (old.shape, old.dtype) != (tensor.shape, tensor.dtype):
                raise HostError(
                    f"`{tensor.name}` is {old.dtype.name} {list(old.shape)}, not {tensor.dtype.name} {list(tensor.shape)}"
                )
        found.update({tensor.name: tensor.copy() for tensor in tensors})

    def _tap(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.taps.append(request)

    def _loss(self, _request: Dict[str, Any], _: List[Tensor]) -> float:
        if self.loss is None:
            raise HostError("the test has given no loss: set `host.loss`")
        return float(self.loss)

    def _graph(self, _request: Dict[str, Any], _: List[Tensor]) -> bytes:
        if self.graph is None:
            raise HostError("the test has given no graph: set `host.graph`")
        return json.dumps(self.graph).encode("utf-8")

    def _batch(self, request: Dict[str, Any], _: List[Tensor]) -> "_Tensors":
        batches = _find("split", request["split"], self.batches)
        if request["index"] >= len(batches):
            raise HostError(f"split `{request['split']}` has {len(batches)} batches, no batch {request['index']}")
        batch = batches[request["index"]]
        return _Tensors(batch if request.get("all") else batch[:2])

    def _emit(self, request: Dict[str, Any], tensors: List[Tensor]) -> None:
        self.emitted.append(Emitted(request["name"], request["payload"], {each.name: each.copy() for each in tensors}))

    def _write_checkpoint(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        path = os.path.join(self.info.folder, request["path"])
        existed = os.path.exists(path)
        os.makedirs(path, exist_ok=True)
        self.checkpoints.append(path)
        return {"path": path, "bytes": 0, "existed": existed}

    def _queue_checkpoint(self, request: Dict[str, Any], _: List[Tensor]) -> List[str]:
        self.checkpoints.append(request["path"])
        return []

    def _artifact(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.artifacts.append((request["kind"], request["path"]))

    def _run_info(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        info = self.info._asdict()
        info["data"] = self.info.data._asdict()
        info["lora"] = None if self.info.lora is None else self.info.lora._asdict()
        return info

    def _option(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        value: Any = self.options
        for part in request["name"].split("."):
            value = _find("option", part, value if isinstance(value, dict) else {})
        return value

    def _console_line(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        self.lines.append(request["text"])

    def _console_lines(self, request: Dict[str, Any], _: List[Tensor]) -> Any:
        lines = [{"number": number, "time": 0.0, "text": text} for number, text in enumerate(self.lines, 1)]
        return lines[request["after"] :]

    def _console_status(self, request: Dict[str, Any], _: List[Tensor]) -> None:
        if request["text"]:
            self.statuses[request["name"]] = Status(request["text"], request.get("progress"))
        else:
            self.statuses.pop(request["name"], None)

    def _hook_times(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        return []

    def _profile(self, _request: Dict[str, Any], _: List[Tensor]) -> Any:
        return []

    def _nothing(self, _request: Dict[str, Any], _: List[Tensor]) -> None:
        """What is only seen in ``asked``."""

    _keep_alive = _weights_copy = _training_state_copy = _freeze = _limit_batches = _nothing
    _open_split = _recalibrate_batch_norm = _nothing

    def _remote(self, _request: Dict[str, Any], _: List[Tensor]) -> int:
        return 1 << 63


class _Tensors:
    """A reply that is tensors."""

    def __init__(self, tensors: List[Tensor]) -> None:
        self.tensors = tensors


class FakeHost(World):
    """A host with one callback: sends it events, and keeps what it did."""

    def __init__(self, kind: Type[Callback], instance: Optional[str] = None, **options: Any) -> None:
        """Makes a callback of the class ``kind`` with these options.

        Raises:
            DescriptionError: a class that the host could not use.
        """
        super().__init__()
        self.descriptor = describe(kind)
        """What the class says of itself."""
        self.info = self.info._replace(instance=instance or self.descriptor["kind"])
        self.options = options
        self.dispatch: str = self.descriptor["dispatch"]
        """``inline`` or ``background``; the class's own by default."""
        self._link = _FakeLink(self)
        self.callback = make(kind, self.info.instance, options)
        """The callback."""

    @property
    def folder(self) -> str:
        """The run folder: a temporary one, made at the first use."""
        if not self.info.folder:
            folder = tempfile.mkdtemp(prefix="fake-host-")
            weakref.finalize(self, shutil.rmtree, folder, True)
            self.info = self.info._replace(folder=folder)
        return self.info.folder

    def subscribes(self, event: str) -> bool:
        """Whether the callback has a method for an event."""
        return event in self.descriptor["hooks"]

    def fire(self, event: str, **data: Any) -> None:
        """Sends an event with the data of its argument, unless the callback has no method for it."""
        if event not in events.NUMBERS:
            raise ValueError(f"there is no event `{event}`{_near(event, events.NUMBERS)}")
        self._send(event, lambda run: getattr(self.callback, method_of(event))(run, self._argument(event, data)))

    def _send(self, event: str, hook: Callable[[Run], None]) -> None:
        if not self.subscribes(event):
            return
        run = Run(self._link, self._link.enter(event))
        try:
            hook(run)
        finally:
            run._end()
            self._link.leave()

    def _argument(self, event: str, data: Dict[str, Any]) -> Any:
        at = events.of_message("setup", self.position._asdict())
        made = events.of_message(event, self.position._asdict())
        if data and type(made) is type(at):
            raise TypeError(f"`{event}` has only a position, no {_listed(list(data), 'or')}")
        return made._replace(**data)

    def setup(self) -> None:
        """Sends ``setup``."""
        self.fire("setup")

    def train_start(self) -> None:
        """Sends ``train_start``."""
        self.fire("train_start")

    def train_end(self, outcome: str = "finished", reason: str = "") -> None:
        """Sends ``train_end``."""
        self.fire("train_end", outcome=outcome, reason=reason)

    def epoch_start(self, epoch: int) -> None:
        """Sends ``epoch_start`` of an epoch, from 1."""
        self.position = self.position._replace(epoch=epoch, step=0)
        self.fire("epoch_start")

    def epoch_trained(self, epoch: int) -> None:
        """Sends ``epoch_trained``."""
        self.position = self.position._replace(epoch=epoch)
        self.fire("epoch_trained")

    def epoch_end(self, epoch: int) -> None:
        """Sends ``epoch_end``."""
        self.position = self.position._replace(epoch=epoch)
        self.fire("epoch_end")

    def step_start(self, global_step: int) -> None:
        """Sends ``step_start`` of a step, counted over the run from 1."""
        self._step("step_start", global_step)

    def gradients(self, global_step: int) -> None:
        """Sends ``gradients`` of a step, counted over the run from 1."""
        self._step("gradients", global_step)

    def step_end(self, global_step: int) -> None:
        """Sends ``step_end`` of a step, counted over the run from 1."""
        self._step("step_end", global_step)

    def _step(self, event: str, global_step: int) -> None:
        within = self.position.step + global_step - self.position.global_step
        self.position = self.position._replace(epoch=max(self.position.epoch, 1), step=within, global_step=global_step)
        self.fire(event)

    def evaluation(self, event: str, split: str = "val", batch: int = 0, batches: int = 0, mid_epoch: bool = False) -> None:
        """Sends ``eval_start``, ``eval_step_start``, ``eval_step_end``, ``eval_end`` or a ``predict_`` event."""
        self.fire(event, split=split, batch=batch, batches=batches, mid_epoch=mid_epoch)

    def trigger(self, cause: str = "epoch") -> None:
        """Sends ``trigger``."""
        self.fire("trigger", cause=cause)

    def record(self, author: str, record: Record) -> None:
        """Sends ``record``."""
        from .values import record_message

        self.current_record = record_message(record.name, record.value)
        value = self.current_record["value"]
        scalar = value["value"] if value["type"] == "scalar" else None
        self.fire("record", name=record.name, author=author, type_name=value["type"], scalar=scalar)
        self.current_record = None

    def custom(self, author: str, name: str, payload: bytes = b"", tensors: Arrays = ()) -> None:
        """Sends ``custom``, with tensors in the set ``event``."""
        self.tensors["event"] = {tensor.name: tensor for tensor in tensors_of(tensors)}
        self.fire("custom", name=name, author=author, payload=payload)

    def checkpoint(self, asked_by: str = "host", reason: str = "") -> None:
        """Sends ``checkpoint``."""
        if self.subscribes("checkpoint"):
            self.info = self.info._replace(folder=self.folder)
        self.fire("checkpoint", asked_by=asked_by, reason=reason)

    def artifact(self, kind: str, path: str, author: str) -> None:
        """Sends ``artifact``."""
        self.fire("artifact", kind=kind, path=path, author=author)

    def stopping(self, by: str, reason: str) -> None:
        """Sends ``stopping``."""
        self.fire("stopping", by=by, reason=reason)

    def error(self, by: str, hook: str, message: str) -> None:
        """Sends ``error``."""
        self.fire("error", by=by, hook=hook, message=message)

    def teardown(self) -> None:
        """Sends ``teardown``."""
        self.fire("teardown")

    def save_state(self) -> bytes:
        """Takes the callback's state, as the host keeps it; ``b""`` if it has none."""
        if not self.subscribes("save_state"):
            return b""
        return _messagepack.encode(self.callback.save_state())

    def load_state(self, state: bytes, version: str = "") -> None:
        """Gives the callback a state that :meth:`save_state` took, of this or another instance."""
        if self.subscribes("load_state"):
            self.callback.load_state(_messagepack.decode(state) if state else None, version)


class _FakeLink(Link):
    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.tickets = 0
        self.current: Optional[str] = None

    def enter(self, hook: str) -> int:
        self.tickets += 1
        self.current = hook
        return self.tickets

    def leave(self) -> None:
        self.current = None

    def call(
        self, ticket: int, service: int, payload: bytes, tensors: Sequence[Tensor], hook: Hook
    ) -> Tuple[bytes, List[Tensor]]:
        name = _NAMES.get(service)
        if name is None:
            raise UnknownError(f"this host has no service {service}; use a newer host")
        if ticket != self.tickets or self.current is None:
            raise StaleError("the run was used after its hook had returned")
        host = self.host
        if name != "save_state":
            request = _messagepack.decode(payload) if payload else {}
            host.permit(name, request, self.current, host.dispatch, host.descriptor["needs"])
        reply, found = host.answer(name, payload, tensors)
        lent = [Tensor(tensor.name, tensor.shape, tensor.dtype, tensor.memory.toreadonly(), hook) for tensor in found]
        return reply, lent

    def call_remote(self, ticket: int, service: int, payload: bytes) -> bytes:
        name = _NAMES[service]
        if not SERVICES[name].remote:
            raise NotAllowedError(f"a remote cannot call `{name}`")
        reply, _ = self.host.answer(name, payload, ())
        return reply


def _copies(service: str, request: Mapping[str, Any]) -> List[str]:
    """What a service reads from the copies that were made with an event."""
    if service in ("tensor_list", "tensor_read"):
        return [request["set"]]
    return {
        "loss": ["outputs"],
        "predict": ["parameters", "buffers"],
        "write_checkpoint": ["training_state"],
    }.get(service, [])


def _find(what: str, name: str, among: Mapping[str, Any]) -> Any:
    if name not in among:
        raise NoSuchNameError(f"there is no {what} `{name}`{_near(name, among)}")
    return among[name]


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), 3)
    listed = _listed([f"`{each}`" for each in near], "or")
    return f"; did you mean {listed}?" if near else ""


def _listed(names: Sequence[str], last: str) -> str:
    return " ".join([", ".join(names[:-1]), last, names[-1]]) if len(names) > 1 else "".join(names)
