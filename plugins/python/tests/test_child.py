"""The child process, against a host that speaks the protocol."""

import hashlib
import json
import pathlib
import subprocess
import sys
import threading
import time
import unittest

from host_plugin import _messagepack
from tests.protocol_host import PACKAGE, Ended, ProtocolHost, floats, written

WATCHES = '''
"""Two callbacks and one that is imported."""
import logging
from host_plugin import Callback, Need
from host_plugin.callback import Callback as Imported

class Watches(Callback):
    """Does what the tests ask for."""

    version = "1.2"
    needs = ["parameters"]

    def __init__(self, goal: float = 0.5):
        self.goal, self.seen = goal, 0

    def save_state(self):
        return {"seen": self.seen, "nan": float("nan"), "raw": b"\\0"}

    def load_state(self, state, version):
        self.seen = state["seen"]
        assert state["nan"] != state["nan"] and state["raw"] == b"\\0"
        print("loaded of", version)

    def on_epoch_end(self, run, event):
        self.seen += 1
        print(f"{self.instance} saw epoch {event.epoch} after {event.global_step}")
        logging.getLogger("mine").warning("value %s", run.metric("val_loss"))
        if run.metric("val_loss") <= self.goal:
            run.stop("the goal is reached")

    def on_trigger(self, run, event):
        if event.cause == "exit":
            exit(0)
        if event.cause == "raise":
            raise ValueError("two\\nlines")
        if event.cause == "missing":
            run.metric("val_los")
        if event.cause == "tensors":
            self.kept = run.tensors("parameters")
            sums = {name: sum(tensor.tolist()) for name, tensor in self.kept.items()}
            again = run.tensor("parameters", "b")
            assert again.tolist() == self.kept["b"].tolist()
            run.put_metric("sum", sums["a"] + sums["b"])
        if event.cause == "spent":
            self.kept["a"].tolist()

class Writes(Callback):
    kind = "the-writer"
    dispatch = "inline"
    needs = [Need("parameters", write=True)]

    def on_epoch_start(self, run, event):
        import array
        values = run.tensor("parameters", "a").tolist()
        run.write("parameters", {"a": array.array("f", [2 * value for value in values])})

    def on_setup(self, run, event):
        import threading
        remote = run.remote()
        def work():
            remote.put_record("from another thread", remote.metric("val_loss"))
            remote.stop("by a thread")
        self.thread = threading.Thread(target=work)
        self.thread.start()
'''


class Opens(unittest.TestCase):
    def test_a_file_describes_its_callbacks(self) -> None:
        with ProtocolHost() as host:
            name, opened = host.open(written(WATCHES))
            self.assertEqual((name, opened["protocol"]), ("opened", 1))
            first, second = map(json.loads, opened["descriptors"])
            self.assertEqual((first["kind"], second["kind"]), ("watches", "the-writer"))
            self.assertEqual(first["hooks"], ["load_state", "save_state", "epoch_end", "trigger"])
            self.assertEqual(first["dispatch"], "background")
            self.assertEqual(second["needs"], [{"hook": "", "what": "parameters", "write": True}])
            self.assertEqual((first["version"], first["by_default"]), ("1.2", False))
            self.assertIn("CPython", opened["build"])

    def refused(self, path: str, **fields: object) -> "tuple[str, str]":
        with ProtocolHost() as host:
            name, refusal = host.open(path, **fields)
            self.assertEqual(name, "refused")
            return refusal["message"], refusal["hint"] or ""

    def test_what_cannot_be_opened_is_refused_with_its_place(self) -> None:
        message, _ = self.refused("/nowhere/mine.py")
        self.assertEqual(message, "cannot read `/nowhere/mine.py`: No such file or directory")
        path = written("import os\n\ndef broken(:\n")
        message, _ = self.refused(path)
        self.assertTrue(message.endswith(f"SyntaxError: invalid syntax ({path}:3)"), message)
        path = written("x = 1\n1 / 0\n")
        message, hint = self.refused(path)
        self.assertEqual(message, f"`{path}` cannot be imported: ZeroDivisionError: division by zero ({path}:2)")
        self.assertIn("1 / 0", hint)
        path = written("exit(0)\n")
        self.assertIn("SystemExit: 0", self.refused(path)[0])
        path = written("import no_such_package\n")
        message, hint = self.refused(path)
        self.assertIn("No module named 'no_such_package'", message)
        self.assertIn(sys.executable, hint)
        path = written("x = 1\n")
        self.assertEqual(self.refused(path)[0], f"`{path}` has no callback of its own")
        message, _ = self.refused(path, protocol=2)
        self.assertIn("the protocol 1, the host 2", message)

    def test_the_hash_is_that_of_the_bytes_that_run(self) -> None:
        path = written(WATCHES)
        right = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        self.assertIn("not " + "0" * 64, self.refused(path, sha256="0" * 64)[0])
        with ProtocolHost() as host:
            self.assertEqual(host.open(path, sha256=right)[0], "opened")

    def test_a_file_may_have_the_name_of_a_module(self) -> None:
        for name in ("json.py", "my-callback.py", "numpy.py", "host_plugin.py"):
            with ProtocolHost() as host:
                self.assertEqual(host.open(written(WATCHES, name))[0], "opened", name)

    def test_a_file_imports_what_lies_beside_it(self) -> None:
        path = written("from beside import Base\nclass Mine(Base):\n    pass\n")
        beside = pathlib.Path(path).with_name("beside.py")
        beside.write_text("from host_plugin import Callback\nclass Base(Callback):\n    def on_setup(self, run, event): pass\n")
        with ProtocolHost() as host:
            _, opened = host.open(path)
            self.assertEqual([json.loads(each)["kind"] for each in opened["descriptors"]], ["mine"])
        with ProtocolHost(["--locked"]) as host:
            name, refused = host.open(path)
            self.assertEqual(name, "refused")
            self.assertIn("No module named 'beside'", refused["message"])

    def test_with_a_lock_only_what_it_lists_is_imported_as_it_was_locked(self) -> None:
        path = written("from parts.base import Base\nclass Mine(Base):\n    pass\n")
        folder = pathlib.Path(path).parent
        (folder / "parts").mkdir()
        (folder / "parts" / "__init__.py").write_text("")
        base = folder / "parts" / "base.py"
        base.write_text(
            "from host_plugin import Callback\nclass Base(Callback):\n    def on_setup(self, run, event): pass\n"
        )
        beside = []
        for file in ("parts/__init__.py", "parts/base.py"):
            content = (folder / file).read_bytes()
            beside.append({"file": file, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        with ProtocolHost(["--locked"]) as host:
            self.assertEqual(host.open(path, beside=beside)[0], "opened")
        with ProtocolHost(["--locked"]) as host:
            name, refused = host.open(path, beside=beside[:1])
            self.assertIn("No module named 'parts.base'", refused["message"])
        base.write_text(base.read_text() + "# changed\n")
        with ProtocolHost(["--locked"]) as host:
            name, refused = host.open(path, beside=beside)
            self.assertEqual(name, "refused")
            self.assertIn("has another content than when it was locked", refused["message"])

    def test_limits_are_set(self) -> None:
        path = written(WATCHES + "\nimport resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n")
        with ProtocolHost() as host:
            host.open(path, limits={"open_files": 77, "memory": 1 << 33, "niceness": 3})
        self.assertEqual(host.stdout, "77\n")

    def test_without_a_host_it_says_what_it_is(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", "host_plugin"], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=PACKAGE
        )
        self.assertEqual((ran.returncode, ran.stdout), (2, ""))
        self.assertIn("is started by `host`", ran.stderr)

    def test_it_is_small(self) -> None:
        path = written("import resource\n" + WATCHES + "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n")
        with ProtocolHost() as host:
            host.open(path)
        self.assertLess(int(host.stdout) * 1024, 60e6)


class Lives(unittest.TestCase):
    def host(self, kind: int = 0, options: str = "{}") -> ProtocolHost:
        host = ProtocolHost()
        self.addCleanup(host.__exit__, None, None, None)
        host.open(written(WATCHES))
        host.put_metric("val_loss", 0.5)
        returned = host.create(kind, options=options)
        self.assertEqual(returned, {"status": 0, "message": ""})
        return host

    def test_a_hook_reads_prints_logs_and_stops(self) -> None:
        host = self.host()
        host.position = host.position._replace(epoch=3, global_step=40)
        self.assertEqual(host.event("epoch_end"), {"status": 0})
        self.assertEqual(host.stopped, "the goal is reached")
        self.assertEqual(host.event("step_end"), {"status": 0}, "an event without a method does nothing")
        self.assertEqual(host.destroy(), 0)
        host.__exit__()
        self.assertEqual(host.stdout, "mine saw epoch 3 after 40\n")
        self.assertEqual(host.stderr, "")
        self.assertEqual(host.logs, [{"level": 2, "target": "mine", "message": "value 0.5"}])

    def test_options_reach_the_callback(self) -> None:
        host = self.host(options='{"goal": 0}')
        host.event("epoch_end")
        self.assertIsNone(host.stopped)

    def test_an_instance_that_is_not_made_says_why(self) -> None:
        with ProtocolHost() as host:
            path = written(WATCHES.replace("self.goal, self.seen = goal, 0", "raise ValueError('no')"))
            host.open(path)
            line = path + ":14"
            self.assertEqual(host.create(), {"status": 1, "message": f"ValueError: no ({line})"})

    def test_an_exception_is_a_fault_with_its_place(self) -> None:
        host = self.host()
        for cause, message in (
            ("raise", "ValueError: two lines"),
            ("exit", "SystemExit: 0"),
            ("missing", "there is no metric `val_los`; did you mean `val_loss`?"),
        ):
            with self.subTest(cause):
                self.assertEqual(host.event("trigger", {"texts": {"first": cause}}), {"status": 1})
                fault = host.faults.pop()
                self.assertEqual(fault["message"], message)
                self.assertRegex(fault["place"], r"mine\.py:\d+$")
        self.assertEqual(host.event("epoch_end"), {"status": 0}, "it lives on")

    def test_a_state_survives_another_process(self) -> None:
        first = self.host()
        first.event("epoch_end")
        first.event("save_state")
        state = first.state
        second = self.host()
        texts = {"first": "1.2", "bytes": state, "number": 0, "second": "", "third": "", "value": float("nan")}
        self.assertEqual(second.event("load_state", {"texts": texts}), {"status": 0})
        second.event("save_state")
        assert second.state is not None
        self.assertEqual(_messagepack.decode(second.state)["seen"], 1)

    def test_tensors_are_read_where_they_lie(self) -> None:
        host = self.host()
        host.put_tensors("parameters", {"a": floats(1, 2), "b": floats(*range(100))})
        self.assertEqual(host.event("trigger", {"texts": {"first": "tensors"}}), {"status": 0})
        self.assertEqual(host.metric("sum"), 3 + 4950)
        # The host's memory gets longer: the child maps it again.
        host.put_tensors("parameters", {"a": floats(*[1.0] * 100000)})
        self.assertEqual(host.event("trigger", {"texts": {"first": "tensors"}}), {"status": 0})
        self.assertEqual(host.metric("sum"), 100000 + 4950)
        self.assertEqual(host.event("trigger", {"texts": {"first": "spent"}}), {"status": 1})
        self.assertIn("was lent in a hook that has returned", host.faults.pop()["message"])

    def test_tensors_are_written(self) -> None:
        host = self.host(1)
        host.put_tensors("parameters", {"a": floats(1, 2), "b": floats(3)})
        for _ in range(2):
            self.assertEqual(host.event("epoch_start"), {"status": 0})
        self.assertEqual(host.tensors["parameters"]["a"].tolist(), [4, 8])

    def test_a_thread_has_a_remote(self) -> None:
        host = self.host(1)
        self.assertEqual(host.event("setup"), {"status": 0})
        for _ in range(100):
            if host.stopped:
                break
            time.sleep(0.05)
        self.assertEqual(host.stopped, "by a thread")
        self.assertEqual([(record.name, record.value.value) for record in host.records], [("from another thread", 0.5)])

    def test_it_ends_with_the_host(self) -> None:
        path = written(
            "from host_plugin import Callback\nclass Hangs(Callback):\n    def on_setup(self, run, event):\n"
            "        while True: pass\n"
        )
        host = ProtocolHost()
        self.addCleanup(host.__exit__, None, None, None)
        host.open(path)
        host.create()
        hanging = threading.Thread(target=lambda: self.assertRaises(Ended, host.event, "setup"), daemon=True)
        hanging.start()
        time.sleep(0.2)
        host.control.close()
        self.assertEqual(host.process.wait(10), 1)


if __name__ == "__main__":
    unittest.main()
