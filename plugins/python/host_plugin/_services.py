"""The services of the host by name: the number of each, in which hooks it may be called, and what it does in the background.

It is the table of ``plugin-api/src/services/mod.rs``; a test in Rust compares them line by line.
"""

from typing import Dict, FrozenSet, NamedTuple, Tuple, Union

from .events import NUMBERS


class Service(NamedTuple):
    """A service's row in the table."""

    number: int
    hooks: Union[str, Tuple[str, ...]]
    """``any``, ``always`` (while an instance is made, too), ``idle``, ``content`` or hooks."""
    background: str
    """``direct``, ``snapshot``, ``later`` or ``never``."""
    remote: bool
    """Whether a remote may call it."""


SERVICES: Dict[str, Service] = {
    "fault": Service(1, "always", "direct", False),
    "save_state": Service(2, ("save_state",), "direct", False),
    "metric_put": Service(3, "any", "later", False),
    "metrics": Service(4, "any", "snapshot", True),
    "record_put": Service(5, "any", "direct", True),
    "record": Service(6, ("record",), "direct", False),
    "history_names": Service(7, "any", "snapshot", False),
    "history_series": Service(8, "any", "snapshot", False),
    "history_arrays": Service(9, "any", "snapshot", False),
    "array_put": Service(10, "any", "later", False),
    "hyper_parameters": Service(11, "any", "snapshot", False),
    "hyper_parameter_set": Service(12, "any", "later", False),
    "control": Service(13, "content", "later", True),
    "tensor_list": Service(14, "content", "snapshot", False),
    "tensor_read": Service(15, "content", "snapshot", False),
    "tensor_write": Service(16, "content", "never", False),
    "tensor_to_host": Service(17, "any", "snapshot", False),
    "weights_copy": Service(18, "content", "never", False),
    "training_state_copy": Service(19, "content", "never", False),
    "train_steps": Service(20, "idle", "never", False),
    "graph": Service(21, "any", "snapshot", False),
    "predict": Service(22, "any", "snapshot", False),
    "measure": Service(23, "any", "never", False),
    "recalibrate_batch_norm": Service(24, "idle", "never", False),
    "batch": Service(25, "any", "snapshot", False),
    "emit": Service(26, "any", "direct", False),
    "write_checkpoint": Service(27, ("checkpoint",), "snapshot", False),
    "artifact": Service(28, "any", "later", False),
    "run_info": Service(29, "any", "snapshot", False),
    "console_line": Service(30, "any", "snapshot", False),
    "console_status": Service(31, "any", "snapshot", False),
    "tap": Service(32, ("setup",), "never", False),
    "loss": Service(33, ("step_end", "gradients", "eval_step_end", "trigger"), "snapshot", False),
    "remote": Service(34, "any", "direct", False),
    "hook_times": Service(36, "any", "direct", False),
    "console_lines": Service(37, "any", "snapshot", False),
    "metric": Service(38, "any", "snapshot", True),
    "option": Service(39, "always", "direct", False),
    "metric_points": Service(40, "any", "snapshot", False),
    "latest_arrays": Service(41, "any", "snapshot", False),
    "weights_info": Service(42, "any", "snapshot", False),
    "evaluate": Service(43, "any", "snapshot", False),
    "freeze": Service(44, "idle", "never", False),
    "limit_batches": Service(45, "idle", "never", False),
    "open_split": Service(46, ("setup",), "never", False),
    "profile": Service(47, "any", "never", False),
    "keep_alive": Service(48, "any", "direct", False),
    "queue_checkpoint": Service(49, ("checkpoint",), "never", False),
    "history_remove": Service(50, "any", "later", False),
    "history_latest": Service(51, "any", "snapshot", False),
}

BUSY: FrozenSet[str] = frozenset(
    (
        "step_start",
        "gradients",
        "eval_step_start",
        "eval_step_end",
        "predict_step",
        "record",
        "custom",
        "artifact",
        "checkpoint_written",
        "error",
    )
)
"""The hooks in which a step can be in progress, so that weights may not change."""

READABLE: Dict[str, FrozenSet[str]] = {
    "gradients": frozenset(("gradients", "step_end", "trigger")),
    "batch": frozenset(
        ("step_start", "gradients", "step_end", "trigger", "eval_step_start", "eval_step_end", "predict_step")
    ),
    "outputs": frozenset(("gradients", "step_end", "trigger", "eval_step_end", "predict_step")),
    "taps": frozenset(("gradients", "step_end", "trigger", "eval_step_end", "predict_step")),
    "event": frozenset(("custom",)),
}
"""The hooks in which a set of tensors can be read; any hook for the sets that are not here."""

WRITABLE: Dict[str, FrozenSet[str]] = {
    "gradients": frozenset(("gradients",)),
    "batch": frozenset(("step_start",)),
    "outputs": frozenset(),
    "taps": frozenset(),
    "event": frozenset(),
    "parameters": frozenset(NUMBERS) - BUSY,
    "buffers": frozenset(NUMBERS) - BUSY,
    "optimizer": frozenset(NUMBERS) - BUSY,
}
"""The hooks in which a set of tensors can be written; any hook for copies."""
