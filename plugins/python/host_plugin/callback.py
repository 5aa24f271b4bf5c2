"""The class that a callback derives from, and what it says of itself."""

import re
from typing import Any, ClassVar, Dict, List, NamedTuple, Sequence, Tuple, Type, Union

from . import _options, events
from .run import Run


class Need(NamedTuple):
    """Something that hooks need beyond position and metrics: the host copies only what is listed for the background."""

    what: str
    """A set of tensors (``parameters``, ``gradients``, …), ``training_state``, or the name of a service."""
    hook: str = ""
    """The hook, by its event's name; empty: every hook."""
    write: bool = False
    """Whether it writes there: such a kind cannot run in the background."""


class Callback:
    """A callback: hooks that the host calls while it trains.

    Write the hooks that you need: an event that no callback handles costs the loop nothing. A method that begins with ``on_`` and
    is no hook is an error, so that a typo does not become a hook that is never called.

    Options are the parameters of ``__init__``, with type hints, or of a dataclass ``Options`` in the class, which ``__init__``
    then takes as its only parameter. The host checks them before it makes an instance.

    When a hook raises an exception, the run's ``on_error`` for this instance decides what happens: ``stop`` (the default),
    ``disable`` or ``ignore``.
    """

    kind: ClassVar[str] = ""
    """The name of the kind, ``[a-z0-9-]+``, by which run files choose it; by default the class's name: ``MyCallback`` is
    ``my-callback``."""
    summary: ClassVar[str] = ""
    """What it does, in one line; by default the first line of the class's documentation."""
    version: ClassVar[str] = ""
    """The plugin's version."""
    license: ClassVar[str] = ""
    """Its license, an SPDX expression."""
    dispatch: ClassVar[str] = "background"
    """``background``: the hooks run beside the training, which does not wait for them; ``inline``: the loop waits. What writes
    tensors, measures, or skips updates must be ``inline``."""
    ranks: ClassVar[str] = "zero"
    """In a run of several processes: ``zero``, the first one, or ``all``. What changes the training must be on all."""
    needs: ClassVar[Sequence[Union[str, Need]]] = ()
    """What hooks need beyond position and metrics: names of sets of tensors, or :class:`Need`."""
    when: ClassVar[Union[None, str, Dict[str, Any]]] = None
    """When ``on_trigger`` comes by default: ``"5 epochs"``, ``"100 steps"``, ``{"at": ["end"]}``; else after each epoch."""
    produces: ClassVar[Sequence[str]] = ()
    """The metrics that it puts; ``*`` stands for any text."""
    reads: ClassVar[Sequence[str]] = ()
    """The metrics that it reads."""

    instance: str = ""
    """The instance's name: the key of its state, folder and log. It is there in ``__init__``."""

    def save_state(self) -> Any:
        """Everything that the callback needs to continue as if nothing had happened: bytes, or ``None``, booleans, numbers,
        text, lists, and maps with such values. It comes when a checkpoint is taken."""

    def load_state(self, state: Any, version: str) -> None:
        """When a run resumes, after ``on_setup``: what :meth:`save_state` returned, and the version of the plugin then."""

    def on_setup(self, run: Run, event: events.At) -> None:
        """Once, when the model is built and nothing is trained. Report here what you cannot do."""

    def on_train_start(self, run: Run, event: events.At) -> None:
        """Before the first epoch of this process."""

    def on_train_end(self, run: Run, event: events.TrainEnd) -> None:
        """After the last epoch; always comes, for every outcome."""

    def on_trained(self, run: Run, event: events.At) -> None:
        """Training is over and no step follows; before the last evaluation, triggers, checkpoints and exports."""

    def on_epoch_start(self, run: Run, event: events.At) -> None:
        """Before the first step of an epoch."""

    def on_epoch_trained(self, run: Run, event: events.At) -> None:
        """Right after the last step of an epoch, before its evaluation."""

    def on_epoch_end(self, run: Run, event: events.At) -> None:
        """After the evaluation of an epoch; the epoch's averages are among the metrics."""

    def on_step_start(self, run: Run, event: events.At) -> None:
        """Before a step. Inline, the batch may be read and changed."""

    def on_step_end(self, run: Run, event: events.At) -> None:
        """After the optimizer's update."""

    def on_gradients(self, run: Run, event: events.At) -> None:
        """After backward, before clipping and optimizer. Inline, gradients may be changed, and the update skipped.

        Not in a step of a run in f16 whose gradients do not fit: it has no update.
        """

    def on_eval_start(self, run: Run, event: events.Evaluation) -> None:
        """Before an evaluation."""

    def on_eval_step_start(self, run: Run, event: events.Evaluation) -> None:
        """Before a batch of an evaluation."""

    def on_eval_step_end(self, run: Run, event: events.Evaluation) -> None:
        """After a batch of an evaluation."""

    def on_eval_end(self, run: Run, event: events.Evaluation) -> None:
        """After an evaluation; its metrics are available."""

    def on_predict_start(self, run: Run, event: events.Evaluation) -> None:
        """Before the batches of a prediction job, ``host predict``."""

    def on_predict_step(self, run: Run, event: events.Evaluation) -> None:
        """After a batch of a prediction job."""

    def on_predict_end(self, run: Run, event: events.Evaluation) -> None:
        """After the batches of a prediction job."""

    def on_export(self, run: Run, event: events.At) -> None:
        """An export of a saved checkpoint was asked for, ``host export``."""

    def on_trigger(self, run: Run, event: events.Trigger) -> None:
        """When the run's ``when`` says so: the run decides when, the callback what."""

    def on_record(self, run: Run, event: events.RecordPut) -> None:
        """Somebody put a record; monitors need this."""

    def on_custom(self, run: Run, event: events.Custom) -> None:
        """A custom event of a plugin or of the program that embeds the host."""

    def on_checkpoint(self, run: Run, event: events.Checkpoint) -> None:
        """A checkpoint is taken. It is not written unless a callback writes it here."""

    def on_checkpoint_written(self, run: Run, event: events.CheckpointWritten) -> None:
        """A checkpoint that ``run.queue_checkpoint`` took is written, or could not be."""

    def on_artifact(self, run: Run, event: events.ArtifactPublished) -> None:
        """Something was published."""

    def on_stopping(self, run: Run, event: events.Stopping) -> None:
        """A stop was asked for; the end hooks still come."""

    def on_error(self, run: Run, event: events.Failed) -> None:
        """Something failed; the end hooks still come."""

    def on_teardown(self, run: Run, event: events.At) -> None:
        """The end of every job, for every instance that was created."""


class DescriptionError(Exception):
    """A class that is no callback that the host could use; the message says why."""


def method_of(event: str) -> str:
    """The method for the event called ``event``."""
    return event if event in ("save_state", "load_state") else f"on_{event}"


def hooks_of(kind: Type[Callback]) -> List[str]:
    """The events whose methods a class overrides, in the order of their numbers."""
    return [
        event
        for event in events.NUMBERS
        if getattr(kind, method_of(event), None) is not getattr(Callback, method_of(event))
    ]


def kind_of(kind: Type[Callback]) -> str:
    """The name of a class's kind."""
    # A derived class is a kind of its own.
    own: str = vars(kind).get("kind", "")
    return own or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", kind.__name__).lower().strip("_")


def describe(kind: Type[Callback]) -> Dict[str, Any]:
    """What a class says of itself, as the host reads it.

    Raises:
        DescriptionError: a name that is no kind, a method that is no hook, one of two methods of the state, options without a
            schema, or a value that the host does not know.
    """
    where = f"the class {kind.__name__}"
    name = kind_of(kind)
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise DescriptionError(f"{where} has the kind `{name}`: a kind is letters from a to z, digits and `-`")
    known = [method_of(event) for event in events.NUMBERS]
    for method in dir(kind):
        if method.startswith("on_") and method not in known and callable(getattr(kind, method)):
            raise DescriptionError(f"{where} has the method `{method}`, which is no hook{_meant(method, known)}")
    hooks = hooks_of(kind)
    if ("save_state" in hooks) != ("load_state" in hooks):
        raise DescriptionError(f"{where} has only one of `save_state` and `load_state`; a state needs both")
    for field, choices in (("dispatch", ("background", "inline")), ("ranks", ("zero", "all"))):
        if getattr(kind, field) not in choices:
            raise DescriptionError(f"{where}: `{field}` is {getattr(kind, field)!r}, not {' or '.join(choices)}")
    try:
        options = _options.schema_of(kind)
    except _options.OptionsError as error:
        raise DescriptionError(f"{where}: {error}") from error
    when = {"every": kind.when} if isinstance(kind.when, str) else kind.when
    summary = kind.summary or (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return {
        "kind": name,
        "version": str(kind.version),
        "summary": summary if kind.__doc__ is not Callback.__doc__ or kind.summary else "",
        "license": str(kind.license),
        "hooks": hooks,
        "needs": [_need(where, need) for need in kind.needs],
        "requires_minor": 0,
        "options": options,
        "when": when,
        "dispatch": kind.dispatch,
        # Python in a plugins folder is nobody's choice until the run names it.
        "by_default": False,
        "ranks": kind.ranks,
        "produces": list(kind.produces),
        "reads": list(kind.reads),
    }


def make(kind: Type[Callback], instance: str, options: Dict[str, Any]) -> Callback:
    """An instance with a name, and options that satisfy the schema."""
    callback = kind.__new__(kind)
    callback.instance = instance
    positional, named = _options.arguments_of(kind, options)
    callback.__init__(*positional, **named)  # type: ignore[misc]
    return callback


def _need(where: str, need: Union[str, Need, Tuple[Any, ...]]) -> Dict[str, Any]:
    if isinstance(need, str):
        need = Need(need)
    try:
        what, hook, write = Need(*need)
    except TypeError as error:
        raise DescriptionError(f"{where}: {need!r} is no need; write `Need(\"parameters\", hook=\"epoch_end\")`") from error
    if hook and hook not in events.NUMBERS:
        raise DescriptionError(f"{where}: a need is for the hook `{hook}`, which does not exist")
    return {"hook": hook, "what": what, "write": bool(write)}


def _meant(name: str, names: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean `{near[0]}`?" if near else ""
