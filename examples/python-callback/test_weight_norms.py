"""Tests of the callbacks, without a host: `python3 -m unittest`."""

import unittest
from array import array

from host_plugin.testing import FakeHost
from weight_norms import StopAtGoal, WeightNorms


class Tests(unittest.TestCase):
    def test_the_largest_norm_is_a_metric(self) -> None:
        host = FakeHost(WeightNorms)
        host.put_tensors("parameters", {"a": array("f", [3, 4]), "b": array("f", [1])})
        host.epoch_end(1)
        self.assertEqual(host.metric("weight_norm"), 5.0)
        self.assertEqual([record.name for record in host.records], ["norm/a", "norm/b"])

    def test_the_goal_ends_the_run(self) -> None:
        host = FakeHost(StopAtGoal, goal=0.5)
        host.put_metric("val_loss", 0.4)
        host.epoch_end(3)
        self.assertEqual(host.stopped, "val_loss is 0.400 after epoch 3")


if __name__ == "__main__":
    unittest.main()
