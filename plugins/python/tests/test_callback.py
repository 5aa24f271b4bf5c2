"""What a class says of itself, its options, and the fake host."""

import dataclasses
import enum
import pathlib
import typing
import unittest
from typing import Any, Dict, List, Optional, Tuple

from host_plugin import Callback, HostError, Need, NoSuchNameError, NotAllowedError, NoValueError, Option, StaleError
from host_plugin import values as v
from host_plugin.callback import DescriptionError, describe
from host_plugin.testing import FakeHost
from tests.protocol_host import floats

# `typing.Annotated` is there from Python 3.9 on.
Annotated = typing.Annotated


class Mode(enum.Enum):
    LOW = "min"
    HIGH = "max"


@dataclasses.dataclass
class Inner:
    """A table.

    Attributes:
        size: How large it is.
    """

    size: int = 3
    names: List[str] = dataclasses.field(default_factory=list)


class WithOptions(Callback):
    """Has options of every type.

    More about it.

    Args:
        goal (float): The goal,
            which is a number.
        mode: Which way.

    Returns:
        nothing: This is no option.
    """

    def __init__(
        self,
        goal: float,
        mode: Mode = Mode.LOW,
        metric: Annotated[str, Option("The metric", format="metric")] = "val_loss",
        patience: Annotated[int, "How long"] = 3,
        path: Optional[pathlib.Path] = None,
        pair: Tuple[int, str] = (1, "a"),
        sizes: Tuple[float, ...] = (),
        table: Inner = Inner(),
        words: Optional[Dict[str, int]] = None,
        choice: typing.Literal["a", "b"] = "a",
        anything: Any = None,
    ) -> None:
        self.given = (goal, mode, metric, patience, path, pair, sizes, table, words, choice, anything)

    def on_setup(self, run: Any, event: Any) -> None:
        pass


class WithDataclass(Callback):
    @dataclasses.dataclass
    class Options:
        goal: float
        names: List[str] = dataclasses.field(default_factory=lambda: ["a"])

    def __init__(self, options: Options) -> None:
        self.options = options


class Schema(unittest.TestCase):
    def test_hints_and_documentation_are_a_schema(self) -> None:
        described = describe(WithOptions)
        self.assertEqual(described["summary"], "Has options of every type")
        schema = described["options"]
        self.assertEqual((schema["required"], schema["additionalProperties"]), (["goal"], False))
        self.assertEqual(
            schema["properties"],
            {
                "goal": {"type": "number", "description": "The goal, which is a number."},
                "mode": {"enum": ["min", "max"], "description": "Which way.", "default": "min"},
                "metric": {"type": "string", "description": "The metric", "format": "metric", "default": "val_loss"},
                "patience": {"type": "integer", "description": "How long", "default": 3},
                "path": {"type": ["string", "null"], "default": None},
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "minItems": 2,
                    "maxItems": 2,
                    "default": [1, "a"],
                },
                "sizes": {"type": "array", "items": {"type": "number"}, "default": []},
                "table": {
                    "title": "Inner",
                    "type": "object",
                    "properties": {
                        "size": {"type": "integer", "description": "How large it is.", "default": 3},
                        "names": {"type": "array", "items": {"type": "string"}, "default": []},
                    },
                    "additionalProperties": False,
                    "default": {"size": 3, "names": []},
                },
                "words": {
                    "anyOf": [{"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "null"}],
                    "default": None,
                },
                "choice": {"enum": ["a", "b"], "default": "a"},
                "anything": {"default": None},
            },
        )

    def test_options_are_the_values_of_their_hints(self) -> None:
        options = {
            "goal": 1,
            "mode": "max",
            "path": "a/b",
            "pair": [2, "b"],
            "sizes": [1, 2.5],
            "table": {"size": 4.0},
            "words": {"a": 1},
            "anything": [{}],
        }
        goal, mode, metric, patience, path, pair, sizes, table, words, choice, anything = FakeHost(
            WithOptions, **options
        ).callback.given  # type: ignore[attr-defined]
        self.assertEqual((goal, type(goal), mode, metric, patience), (1.0, float, Mode.HIGH, "val_loss", 3))
        self.assertEqual((path, pair, sizes), (pathlib.Path("a/b"), (2, "b"), (1.0, 2.5)))
        self.assertEqual((table, type(table.size), words), (Inner(4), int, {"a": 1}))
        self.assertEqual((choice, anything), ("a", [{}]))

    def test_a_dataclass_may_hold_the_options(self) -> None:
        schema = describe(WithDataclass)["options"]
        self.assertEqual(schema["properties"]["names"], {"type": "array", "items": {"type": "string"}, "default": ["a"]})
        host = FakeHost(WithDataclass, goal=2)
        self.assertEqual(host.callback.options, WithDataclass.Options(2.0, ["a"]))  # type: ignore[attr-defined]

    def test_parameters_that_are_no_options_are_refused(self) -> None:
        class Star(Callback):
            def __init__(self, **more: int) -> None:
                pass

        class Odd(Callback):
            def __init__(self, what: object = None) -> None:
                pass

        for kind, message in (
            (Star, "the class Star: `__init__` takes `*more`: options are parameters with names"),
            (Odd, "the class Odd: the option `what`: the type object has no form in a run file"),
        ):
            with self.assertRaises(DescriptionError) as caught:
                describe(kind)
            self.assertEqual(str(caught.exception), message)


class Descriptor(unittest.TestCase):
    def test_the_name_of_a_class_is_that_of_its_kind(self) -> None:
        for name, expected in (("StopAtGoal", "stop-at-goal"), ("CSVLogger", "csv-logger"), ("Top5", "top5")):
            self.assertEqual(describe(type(name, (Callback,), {}))["kind"], expected)
        base = type("Base", (Callback,), {"kind": "base-kind"})
        self.assertEqual(describe(type("Derived", (base,), {}))["kind"], "derived")

    def test_what_is_wrong_is_said(self) -> None:
        def nothing(self: Any, *_: Any) -> None:
            pass

        for fields, message in (
            ({"on_epoch_ended": nothing}, "the method `on_epoch_ended`, which is no hook; did you mean `on_epoch_end`?"),
            ({"kind": "My Kind"}, "the kind `My Kind`: a kind is letters from a to z, digits and `-`"),
            ({"save_state": nothing}, "only one of `save_state` and `load_state`"),
            ({"dispatch": "later"}, "`dispatch` is 'later', not background or inline"),
            ({"needs": [("a", "epoch_ends")]}, "for the hook `epoch_ends`, which does not exist"),
        ):
            with self.assertRaises(DescriptionError) as caught:
                describe(type("Wrong", (Callback,), fields))
            self.assertIn(message, str(caught.exception))

    def test_the_fields_of_a_class_are_in_the_descriptor(self) -> None:
        class Full(Callback):
            needs = ["parameters", Need("outputs", hook="step_end")]
            when = "5 epochs"
            ranks = "all"
            dispatch = "inline"
            produces = ["mine_*"]
            reads = ["val_loss"]

        described = describe(Full)
        self.assertEqual(described["needs"][1], {"hook": "step_end", "what": "outputs", "write": False})
        self.assertEqual((described["when"], described["ranks"]), ({"every": "5 epochs"}, "all"))
        self.assertEqual((described["produces"], described["reads"]), (["mine_*"], ["val_loss"]))
        self.assertEqual(described["summary"], "")


class Does(Callback):
    """Does what a test says."""

    dispatch = "inline"
    what: Any = None

    def save_state(self) -> Any:
        return {"a": (1, 2)}

    def load_state(self, state: Any, version: str) -> None:
        self.loaded = (state, version)


def _does(self: Does, run: Any, event: Any) -> None:
    self.result = type(self).what(run, event)


for _hook in ("setup", "step_end", "epoch_end", "record", "custom", "checkpoint", "train_end", "gradients"):
    setattr(Does, f"on_{_hook}", _does)


class Fake(unittest.TestCase):
    def does(self, what: Any, event: str = "epoch_end", host: Any = None, **data: Any) -> Any:
        Does.what = staticmethod(what)
        host = host or FakeHost(Does)
        self.host = host
        host.fire(event, **data)
        return host.callback.result

    def test_metrics(self) -> None:
        host = FakeHost(Does)
        host.know_metric("val_loss")
        with self.assertRaises(NoValueError):
            self.does(lambda run, _: run.metric("val_loss"), host=host)
        self.assertIsNone(self.does(lambda run, _: run.latest_metric("val_loss"), host=host))
        with self.assertRaisesRegex(NoSuchNameError, "did you mean `val_loss`?"):
            self.does(lambda run, _: run.metric("val_los"), host=host)
        self.does(lambda run, _: run.put_metric("mine", 2), host=host)
        self.assertEqual(self.does(lambda run, _: run.metrics(), host=host), {"mine": 2.0})
        self.assertEqual(self.does(lambda run, _: run.history("mine"), host=host), [v.Point(0, 0, 2.0)])
        self.assertEqual(self.does(lambda run, _: run.metrics_of_step(0), host=host), {"mine": 2.0})

    def test_records(self) -> None:
        def put(run: Any, _: Any) -> None:
            run.put_record("a", 1)
            run.put_record("b", "text")
            run.put_record("c", v.Histogram.of([0, 1, 1, float("nan")], 2))
            run.put_record("d", v.Image.of(memoryview(bytes(12)).cast("B", (2, 2, 3))))
            run.put_record("e", v.Table(["x"], [["1"]]))
            run.put_record("f", v.HyperParameters({"depth": 3.0}))

        self.does(put)
        found = [record.value for record in self.host.records]
        self.assertEqual(found[:2], [v.Scalar(1.0), v.Text("text")])
        self.assertEqual(found[2], v.Histogram([0.0, 0.5, 1.0], [1.0, 2.0]))
        self.assertEqual(found[3], v.Image(2, 2, 3, bytes(12)))
        self.assertEqual(found[4:], [v.Table(["x"], [["1"]]), v.HyperParameters({"depth": 3.0})])
        with self.assertRaises(TypeError):
            self.does(lambda run, _: run.put_record("g", object()))
        with self.assertRaisesRegex(ValueError, "unsigned bytes"):
            v.Image.of(floats(1.0))
        host = FakeHost(Does)
        Does.what = staticmethod(lambda run, event: (run.current_record(), event.scalar, event.author))
        host.record("other", v.Record("x", v.Scalar(2.0)))
        self.assertEqual(host.callback.result, (v.Record("x", v.Scalar(2.0)), 2.0, "other"))  # type: ignore[attr-defined]

    def test_histograms_of_extreme_numbers(self) -> None:
        self.assertEqual(sum(v.Histogram.of([-1.7e308, 1.7e308, 0.0]).counts), 3)
        self.assertEqual(v.Histogram.of([2.0, 2.0], 1), v.Histogram([1.5, 2.5], [2.0]))
        self.assertEqual(sum(v.Histogram.of([]).counts), 0)

    def test_hyper_parameters_and_controls(self) -> None:
        host = FakeHost(Does)
        host.put_hyper_parameter("learning_rate", 0.1)
        host.put_hyper_parameter("learning_rate", 0.2, group="head")
        self.does(lambda run, _: run.set_hyper_parameter("learning_rate", 0.05, group="head"), host=host)
        self.assertEqual((host.hyper_parameter("learning_rate"), host.hyper_parameter("learning_rate", "head")), (0.1, 0.05))
        groups = self.does(lambda run, _: run.hyper_parameters(), host=host)
        self.assertEqual(groups[1], v.ParameterGroup("head", {"learning_rate": 0.05}, {"learning_rate": "does"}))
        with self.assertRaises(NoSuchNameError):
            self.does(lambda run, _: run.set_hyper_parameter("lr", 1))
        self.does(lambda run, _: (run.stop("a"), run.checkpoint(), run.request("evaluate")))
        self.assertEqual([request.action for request in self.host.requests], ["stop", "checkpoint", "evaluate"])
        with self.assertRaises(NotAllowedError):
            self.does(lambda run, _: run.skip_update())
        self.does(lambda run, _: run.skip_update(), "gradients")

    def test_tensors(self) -> None:
        host = FakeHost(Does)
        host.put_tensors("parameters", {"w": memoryview(floats(1, 2, 3, 4)).cast("B").cast("f", (2, 2)), "b": floats(5)})
        infos = self.does(lambda run, _: run.list("parameters"), host=host)
        self.assertEqual(infos[0], v.TensorInfo("w", [2, 2], "f32"))
        self.assertEqual(self.does(lambda run, _: run.tensor("parameters", "w").tolist(), host=host), [[1, 2], [3, 4]])
        self.assertEqual(self.does(lambda run, _: run.tensors("parameters")["b"].item(), host=host), 5)
        self.does(lambda run, _: run.write("parameters", {"b": floats(7)}), host=host)
        self.assertEqual(host.tensors["parameters"]["b"].item(), 7)
        with self.assertRaisesRegex(HostError, r"`b` is f32 \[1\], not f32 \[2\]"):
            self.does(lambda run, _: run.write("parameters", {"b": floats(7, 8)}), host=host)
        with self.assertRaises(NotAllowedError):
            self.does(lambda run, _: run.tensors("gradients"), host=host)
        kept = self.does(lambda run, _: run.tensor("parameters", "w"), host=host)
        with self.assertRaises(StaleError):
            kept.tolist()

    def test_a_callback_in_the_background_gets_what_it_names(self) -> None:
        host = FakeHost(Does)
        host.dispatch = "background"
        host.put_tensors("parameters", {"b": floats(5)})
        with self.assertRaisesRegex(NotAllowedError, "must name it in `needs`"):
            self.does(lambda run, _: run.tensors("parameters"), host=host)
        with self.assertRaisesRegex(NotAllowedError, "needs the training thread"):
            self.does(lambda run, _: run.measure("val"), host=host)

    def test_the_run_ends_with_its_hook(self) -> None:
        run = self.does(lambda run, _: run)
        with self.assertRaises(StaleError):
            run.metrics()

    def test_other_services(self) -> None:
        host = FakeHost(Does, instance="me")
        host.graph = {"nodes": []}
        host.loss = 0.5
        host.put_batch("val", floats(1), floats(2))
        host.answers["measure"] = lambda request, _: {"val_loss": 1.0, "split": 0.0}
        host.answers["predict"] = lambda request, inputs: {"outputs": inputs[0]}
        host.answers["evaluate"] = lambda request, _: [{"stop": {"reason": "x"}}] if request["actions"] else 3

        def work(run: Any, _: Any) -> Any:
            run.emit("seen", b"1", {"a": floats(1)})
            run.console_line("line")
            run.console_status("bar", "half", 0.5)
            run.publish("thing", "a/b")
            run.put_array("matrix", [1, 2], [1, 2])
            run.keep_alive()
            run.copy_weights("best", "take")
            run.remote().stop("later")
            inputs, targets = run.batch("val", 0)
            return (
                run.info().instance,
                run.graph(),
                run.measure("val")["val_loss"],
                run.predict(floats(9))["outputs"].item(),
                run.evaluate_number("1 + 2"),
                run.evaluate_actions("stop('x')"),
                (inputs.item(), targets.item()),
                run.latest_arrays()["matrix"].values,
            )

        found = self.does(work, host=host)
        actions = [v.Action("stop", {"reason": "x"})]
        self.assertEqual(found, ("me", {"nodes": []}, 1.0, 9.0, 3.0, actions, (1.0, 2.0), [1.0, 2.0]))
        self.assertEqual((host.lines, host.statuses["bar"].progress, host.stopped), (["line"], 0.5, "later"))
        self.assertEqual(host.emitted[0].tensors["a"].item(), 1.0)
        self.assertEqual(host.artifacts, [("thing", "a/b")])
        self.assertEqual(self.does(lambda run, _: run.loss(), "step_end", host=host), 0.5)
        with self.assertRaises(NotAllowedError):
            self.does(lambda run, _: run.tap("a", "conv1"), host=host)
        self.does(lambda run, _: run.tap("a", "conv1"), "setup", host=host)
        self.assertEqual(host.taps[0]["node"], "conv1")

    def test_events_have_their_fields(self) -> None:
        self.assertEqual(self.does(lambda _, event: event.outcome, "train_end", outcome="stopped", reason="x"), "stopped")
        with self.assertRaises(TypeError):
            self.does(lambda _, event: event, "epoch_end", cause="x")
        with self.assertRaisesRegex(ValueError, "did you mean `epoch_end`"):
            self.host.fire("epoch_ends")
        Does.what = staticmethod(lambda run, event: run.write_checkpoint("here").existed)
        host = FakeHost(Does)
        host.checkpoint()
        self.assertEqual((host.callback.result, len(host.checkpoints)), (False, 1))  # type: ignore[attr-defined]

    def test_a_state_is_what_crosses(self) -> None:
        host = FakeHost(Does)
        host.load_state(host.save_state(), "1")
        self.assertEqual(host.callback.loaded, ({"a": [1, 2]}, "1"))  # type: ignore[attr-defined]

    def test_steps_count_within_their_epoch(self) -> None:
        host = FakeHost(Does)
        Does.what = staticmethod(lambda _, event: tuple(event))
        host.epoch_start(1)
        host.step_end(1)
        host.gradients(2)
        host.step_end(2)
        self.assertEqual(host.callback.result, (1, 2, 2, 0))  # type: ignore[attr-defined]


if __name__ == "__main__":
    unittest.main()
