"""Callbacks for ``host`` in Python.

    from host_plugin import Callback

    class StopAtGoal(Callback):
        \"\"\"Ends the run when the validation loss is low enough.\"\"\"

        def __init__(self, goal: float = 0.1):
            self.goal = goal

        def on_epoch_end(self, run, event):
            if run.metric("val_loss") <= self.goal:
                run.stop("the goal is reached")

:class:`Callback` has the hooks, :class:`~host_plugin.run.Run` what a hook may ask for, :mod:`host_plugin.testing` a fake host.
"""

from . import events, values
from ._options import Option
from .callback import Callback, Need
from .errors import HostError, NoSuchNameError, NotAllowedError, NoValueError, StaleError, UnknownError
from .run import Remote, Run
from .tensors import Tensor

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "HostError",
    "Need",
    "NoSuchNameError",
    "NoValueError",
    "NotAllowedError",
    "Option",
    "Remote",
    "Run",
    "StaleError",
    "Tensor",
    "UnknownError",
    "events",
    "values",
]
