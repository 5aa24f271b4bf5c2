"""What goes wrong between a callback and the host."""

from typing import Dict, Type


class HostError(Exception):
    """A service of the host failed; the message says why. The subclasses say what kind of failure it is."""

    status = 1
    """The number of the status in the host's ABI."""


class StaleError(HostError):
    """The run was used after its hook had returned, or a remote after the training."""

    status = 3


class UnknownError(HostError):
    """The host is older than this service."""

    status = 4


class NoSuchNameError(HostError, LookupError):
    """There is no metric, tensor, split or node with that name; the message lists the nearest ones. Or the model has no graph."""

    status = 5


class NotAllowedError(HostError):
    """Not allowed in this hook, at this point, or in the background."""

    status = 6


class NoValueError(HostError, LookupError):
    """The metric is known but has no value yet."""

    status = 7


_BY_STATUS: Dict[int, Type[HostError]] = {
    error.status: error for error in (HostError, StaleError, UnknownError, NoSuchNameError, NotAllowedError, NoValueError)
}


def of_status(status: int, message: str) -> HostError:
    """The error of a service that ended with ``status``."""
    return _BY_STATUS.get(status, HostError)(message)
