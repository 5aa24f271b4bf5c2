"""The values that the services of the host take and return."""

from typing import Any, Dict, List, NamedTuple, Optional, Type, TypeVar, Union

_T = TypeVar("_T")


class Point(NamedTuple):
    """A value of a series."""

    epoch: int
    """The epoch in which it was put, from 1."""
    global_step: int
    """The global step after which it was put."""
    value: float
    """The value."""


class ArrayPoint(NamedTuple):
    """An array of a series."""

    epoch: int
    """The epoch in which it was put, from 1."""
    global_step: int
    """The global step after which it was put."""
    shape: List[int]
    """Its shape."""
    values: List[float]
    """Its values, the last dimension fastest."""


class WeightsInfo(NamedTuple):
    """Where the weights of the model come from."""

    epoch: int
    """The epoch in which they were those of the training, from 1."""
    global_step: int
    """The global step after which they were."""
    metrics: Dict[str, float]
    """What was measured of them; values that are still being averaged are not among them."""


class ParameterGroup(NamedTuple):
    """A parameter group of the optimizer."""

    name: str
    """Its name."""
    values: Dict[str, float]
    """Its hyper-parameters: ``learning_rate``, ``weight_decay``, …."""
    owners: Dict[str, str] = {}
    """Who owns each value that the host's schedule no longer sets."""


class CheckpointWritten(NamedTuple):
    """A checkpoint that was written."""

    path: str
    """The folder, absolute."""
    bytes: int
    """Bytes of all its files."""
    existed: bool = False
    """Whether one of the same position already existed."""


class ConsoleLine(NamedTuple):
    """A line that the console showed."""

    number: int
    """Counts the lines of the host's process, from 1."""
    time: float
    """Seconds since 1970, UTC."""
    text: str
    """The line, without its break."""


class HookTime(NamedTuple):
    """The cost of one hook of one callback, in the host's process."""

    instance: str
    """The instance's name."""
    hook: str
    """The hook; ``waiting`` for the time that the loop waited for a callback in the background."""
    background: bool
    """Whether it ran in the background, where the loop did not wait for it."""
    calls: int
    """How many calls."""
    seconds: float
    """Their time."""
    longest_seconds: float
    """The longest call that was timed."""


class Span(NamedTuple):
    """A span of time of a profile, by the clock of the host."""

    name: str
    """The phase or the operator."""
    kind: str
    """``phase`` or ``operator``."""
    step: int
    """The global step of the phase; of an operator, the step in which it was read."""
    began: int
    """Nanoseconds from the beginning of the recording."""
    nanoseconds: int
    """How long it took."""


class TensorInfo(NamedTuple):
    """The description of a tensor."""

    name: str
    """Its name."""
    shape: List[int]
    """Its shape."""
    dtype: str
    """Its element type: ``f32``, ``i64``, …."""


class Action(NamedTuple):
    """What an action of an expression asks for, with its values computed. To do it is up to whoever asked."""

    name: str
    """``stop``, ``checkpoint``, ``log``, ``put`` or ``set``."""
    fields: Dict[str, Any]
    """What goes with it, such as ``reason``, or ``name`` and ``value``."""


class LoraInfo(NamedTuple):
    """Low-rank adapters beside frozen weights, in the words of PEFT's ``LoraConfig``."""

    rank: int = 0
    """``r``"""
    alpha: float = 0.0
    """``lora_alpha``"""
    fan_in_fan_out: bool = False
    """Whether the adapted weights are stored transposed."""
    target_modules: List[str] = []
    """The names of the adapted modules."""
    modules_to_save: List[str] = []
    """The names of the modules that are trained themselves."""
    tensors: List[str] = []
    """The names of the adapters' parameters."""


class DataInfo(NamedTuple):
    """What a run is trained on."""

    splits: Dict[str, int] = {}
    """The samples of each split."""
    classes: int = 0
    """The number of classes; 0 if numbers are predicted."""
    target_names: List[str] = []
    """The names of the classes, or of the predicted numbers, in order; empty if unknown."""
    offset: List[float] = []
    """What was subtracted from every sample, one number for each index of its first dimension."""
    scale: List[float] = []
    """What every sample was then divided by, as ``offset``."""
    tokens: List[str] = []
    """What each token of a sample stands for; empty if samples are not tokens, or are bytes."""
    feature_names: List[str] = []
    """The names of a sample's numbers; empty if they have none."""

    def is_evaluated(self, metric: str) -> bool:
        """Whether a metric, by its name, is of a split that is evaluated."""
        return any(metric.startswith(f"{split}_") for split in self.splits if split != "train")


class RunInfo(NamedTuple):
    """The description of the run."""

    instance: str = ""
    """The instance's own name."""
    name: str = ""
    """The run's name."""
    folder: str = ""
    """The run folder, absolute."""
    run_file: str = ""
    """The resolved run file, as JSON text."""
    host_version: str = ""
    """The host's version."""
    device: str = ""
    """``cpu`` or ``cuda:N``."""
    epochs: int = 0
    """Epochs planned; 0 when the run is planned in steps."""
    steps_per_epoch: int = 0
    """Steps of one epoch."""
    total_steps: int = 0
    """Steps planned in all."""
    training_samples: int = 0
    """Samples of the training split."""
    data: DataInfo = DataInfo()
    """What is trained on."""
    metrics: List[str] = []
    """Every metric that the run will give, by name, sorted."""
    resumed_from: Optional[str] = None
    """The checkpoint that the run resumed from."""
    previous_end: Optional[str] = None
    """How the last process of the run ended, if it did not end by itself."""
    job: str = ""
    """``train``, ``evaluate``, ``predict`` or ``export``."""
    trial: bool = False
    """Whether this is a trial (``--try``) that publishes nothing."""
    rank: int = 0
    """Which of the run's processes this is, from 0."""
    world_size: int = 0
    """How many processes train the model together."""
    lora: Optional[LoraInfo] = None
    """The adapters that are trained in place of the model's own parameters, if there are some."""
    console_width: int = 0
    """The columns of the terminal that shows the console; 0 if it is shown on none."""
    console_colors: bool = False
    """Whether the console shows ANSI colors."""


class Scalar(NamedTuple):
    """A record: a number."""

    value: float


class Text(NamedTuple):
    """A record: text; Markdown if the monitor supports it."""

    text: str


class Histogram(NamedTuple):
    """A record: the distribution of values."""

    edges: List[float]
    """``len(counts) + 1`` borders, ascending."""
    counts: List[float]
    """How many values between two borders."""

    @classmethod
    def of(cls, values: Any, bins: int = 64) -> "Histogram":
        """The histogram of numbers in bins of equal width. What is not finite is left out."""
        numbers = [float(value) for value in _flat(values)]
        finite = [number for number in numbers if number - number == 0.0]
        least, greatest = (min(finite), max(finite)) if finite else (0.0, 0.0)
        if least == greatest:
            least, greatest = least - 0.5, greatest + 0.5
        # Halves, since the difference of two large numbers may be infinite.
        width = (greatest / 2 - least / 2) / bins * 2
        counts = [0.0] * bins
        for number in finite:
            counts[min(int((number / 2 - least / 2) / (width / 2)), bins - 1)] += 1.0
        return cls([least + width * border for border in range(bins)] + [greatest], counts)


class Image(NamedTuple):
    """A record: a picture."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    channels: int
    """1 gray, 3 RGB, 4 RGBA."""
    pixels: bytes
    """Rows from the top, ``width * height * channels`` bytes."""

    @classmethod
    def of(cls, pixels: Any) -> "Image":
        """The picture of an array of bytes with the shape ``[height, width]`` or ``[height, width, channels]``.

        Raises:
            ValueError: another shape, or elements that are not unsigned bytes.
        """
        view = memoryview(pixels)
        shape = view.shape or ()
        if view.format != "B" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            raise ValueError(
                "a picture is an array of unsigned bytes with the shape [height, width] or [height, width, 1, 3 or 4], "
                f"not of the format {view.format} with the shape {list(shape)}"
            )
        return cls(shape[1], shape[0], shape[2] if len(shape) == 3 else 1, view.tobytes())


class Table(NamedTuple):
    """A record: rows of cells."""

    columns: List[str]
    """The columns' names."""
    rows: List[List[str]]
    """The cells, row by row."""


class Curve(NamedTuple):
    """A record: a line."""

    x_label: str
    """The horizontal axis' name."""
    y_label: str
    """The vertical axis' name."""
    x: List[float]
    """Horizontal positions."""
    y: List[float]
    """Vertical positions."""


class Graph(NamedTuple):
    """A record: a model graph, as JSON text."""

    json: str


class HyperParameters(NamedTuple):
    """A record: hyper-parameters that are not in the run file, such as those that a search chose."""

    values: Dict[str, Union[bool, float, str]]


RecordValue = Union[Scalar, Text, Histogram, Image, Table, Curve, Graph, HyperParameters]
"""What a record holds."""

_TYPES: Dict[str, Any] = {
    "scalar": Scalar,
    "histogram": Histogram,
    "image": Image,
    "text": Text,
    "table": Table,
    "curve": Curve,
    "graph": Graph,
    "hyper_parameters": HyperParameters,
}


class Record(NamedTuple):
    """Something for the monitors."""

    name: str
    """Its name, ``a/b/c`` if it belongs to a group."""
    value: Any
    """What it is: one of the record types, or a map of a type that this package does not know."""


def record_message(name: str, value: Union[RecordValue, float, str]) -> Dict[str, Any]:
    """A record as the host reads it. A number is a scalar, and text is text."""
    if isinstance(value, str):
        value = Text(value)
    for type_name, kind in _TYPES.items():
        if isinstance(value, kind):
            fields = {key: _plain(item) for key, item in zip(kind._fields, value)}
            return {"name": name, "value": {"type": type_name, **fields}}
    if hasattr(value, "__float__"):
        return {"name": name, "value": {"type": "scalar", "value": float(value)}}  # type: ignore[arg-type]
    raise TypeError(f"a value of the type {type(value).__name__} is no record; take one of host_plugin.values")


def record_of(message: Dict[str, Any]) -> Record:
    """The record of a message of the host."""
    value = message["value"]
    kind = _TYPES.get(value.get("type"))
    return Record(message["name"], value if kind is None else fields_of(kind, value))


def fields_of(kind: Type[_T], message: Dict[str, Any]) -> _T:
    """The value with the fields of a message; fields of a newer host are left out."""
    return kind(**{name: message[name] for name in kind._fields if name in message})  # type: ignore[attr-defined]


def run_info_of(message: Dict[str, Any]) -> RunInfo:
    """The description of a run, from the message of the host."""
    info = fields_of(RunInfo, message)
    info = info._replace(data=fields_of(DataInfo, message.get("data") or {}))
    return info if message.get("lora") is None else info._replace(lora=fields_of(LoraInfo, message["lora"]))


def _plain(value: Any) -> Any:
    """Arrays as lists; table cells and everything else as they are."""
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, memoryview) else value


def _flat(values: Any) -> Any:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from _flat(value)
    else:
        yield values
