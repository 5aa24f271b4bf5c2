# host-plugin: weight-norms
# host-plugin: stop-at-goal
"""Two callbacks for `host`: one reads tensors beside the training, one ends it."""

import math
from typing import Annotated, Any, Dict

from host_plugin import Callback, Need, Option, Run, events


class WeightNorms(Callback):
    """Records the norm of every parameter after each epoch, and puts the largest one as the metric `weight_norm`.

    Args:
        warn_above: A norm above this is logged.
    """

    version = "0.1.0"
    license = "MIT OR Apache-2.0"
    # It runs beside the training. Only what is listed is copied with the event.
    needs = [Need("parameters", hook="epoch_end")]
    produces = ["weight_norm"]

    def __init__(self, warn_above: Annotated[float, Option(minimum=0)] = 100.0) -> None:
        self.warn_above = warn_above
        self.largest: Dict[str, float] = {}

    def on_epoch_end(self, run: Run, event: events.At) -> None:
        norms = {}
        for name, tensor in run.tensors("parameters").items():
            # `tensor.numpy()` is the same memory as an array, where NumPy is there.
            elements = tensor.copy().memory.cast("f") if tensor.dtype.name == "f32" else []
            norms[name] = math.sqrt(sum(element * element for element in elements))
            run.put_record(f"norm/{name}", norms[name])
            if norms[name] > self.warn_above:
                print(f"the norm of {name} is {norms[name]:.1f} after epoch {event.epoch}")
        self.largest[str(event.epoch)] = max(norms.values())
        run.put_metric("weight_norm", max(norms.values()))

    def save_state(self) -> Any:
        return self.largest

    def load_state(self, state: Any, version: str) -> None:
        self.largest = state


class StopAtGoal(Callback):
    """Ends the run when a metric is good enough.

    Args:
        metric: The metric.
        goal: The value that is good enough.
    """

    version = "0.1.0"
    license = "MIT OR Apache-2.0"
    # The loop waits for it: it stops before the next epoch begins.
    dispatch = "inline"

    def __init__(
        self, metric: Annotated[str, Option(format="metric")] = "val_loss", goal: float = 0.1
    ) -> None:
        self.metric, self.goal = metric, goal

    def on_epoch_end(self, run: Run, event: events.At) -> None:
        value = run.metric(self.metric)
        run.console_status("goal", f"{self.metric} {value:.3f}, goal {self.goal}")
        if value <= self.goal:
            run.stop(f"{self.metric} is {value:.3f} after epoch {event.epoch}")
