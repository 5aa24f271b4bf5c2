"""Tensors as arrays of NumPy and PyTorch, where these are there; and the memory that both sides share."""

import array
import gc
import os
import unittest
import weakref

from host_plugin import Tensor
from host_plugin._channel import ChannelError, Receiver, Sender
from host_plugin.tensors import DType, tensors_of

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]
try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


class Memory(unittest.TestCase):
    def setUp(self) -> None:
        self.descriptor = os.memfd_create("tensors")
        self.addCleanup(os.close, self.descriptor)
        self.sender, self.receiver = Sender(self.descriptor), Receiver(self.descriptor)

    def test_tensors_of_every_type_cross(self) -> None:
        given = {letter: array.array(letter, [1, 0, 3]) for letter in "bBhHiIlLqQfd"}
        entries = self.sender.put(tensors_of(given))
        self.assertTrue(all(entry["offset"] % 64 == 0 for entry in entries))
        for entry, found in zip(entries, self.receiver.tensors(entries, None)):
            self.assertEqual(found.tolist(), [1, 0, 3], entry)
            self.assertTrue(found.memory.readonly)

    def test_shapes(self) -> None:
        flat = memoryview(array.array("i", range(12)))
        for shape, expected in (
            ((3, 4), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
            ((2, 2, 3), [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]),
        ):
            tensor = Tensor.of("t", flat.cast("B").cast("i", shape))
            self.assertEqual((tensor.shape, tensor.tolist()), (shape, expected))
        self.assertEqual(Tensor("t", (), DType(0, 32), flat.cast("B")[:4]).tolist(), 0)
        self.assertEqual(Tensor("t", (2, 0), DType(0, 32), memoryview(b"")).size, 0)
        self.assertEqual(Tensor("t", (2, 0), DType(0, 32), memoryview(b"")).tolist(), [])

    def test_bf16_is_read_exactly(self) -> None:
        tensor = Tensor("t", (2,), DType(4, 16), memoryview(array.array("H", [0x3FC0, 0xC000])).cast("B"))
        self.assertEqual((tensor.tolist(), tensor.dtype.name), ([1.5, -2.0], "bf16"))

    def test_a_map_stays_as_long_as_a_tensor_of_it(self) -> None:
        first = self.receiver.tensors(self.sender.put(tensors_of({"a": array.array("d", [1.0])})), None)[0]
        entries = self.sender.put(tensors_of({"b": array.array("d", [2.0] * 10000)}), 64)
        second = self.receiver.tensors(entries, None)[0]
        self.assertEqual((first.item(), second.tolist()[-1]), (1.0, 2.0))

    def test_what_cannot_be_is_refused(self) -> None:
        (entry,) = self.sender.put(tensors_of({"a": array.array("d", [1.0])}))
        for wrong in ({"length": 16}, {"offset": -8}, {"shape": [-1]}, {"offset": 1 << 40}):
            with self.assertRaises(ChannelError):
                self.receiver.tensors([{**entry, **wrong}], None)
        for value in (object(), [1.0], memoryview(b"ab").cast("c")):
            with self.assertRaises(TypeError):
                Tensor.of("a", value)


@unittest.skipIf(numpy is None, "NumPy is not installed")
class NumPy(unittest.TestCase):
    def test_arrays_share_the_memory(self) -> None:
        descriptor = os.memfd_create("tensors")
        sender, receiver = Sender(descriptor), Receiver(descriptor)
        values = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
        found = receiver.tensors(sender.put(tensors_of({"a": values})), None)[0]
        seen = found.numpy()
        self.assertTrue(numpy.array_equal(seen, values) and not seen.flags.writeable and not seen.flags.owndata)
        sender.put(tensors_of({"a": values + 1}))
        self.assertTrue(numpy.array_equal(seen, values + 1), "nothing was copied")
        self.assertEqual(float(numpy.asarray(found, dtype=numpy.float64).sum()), 21.0)
        self.assertTrue(numpy.array(found, copy=True).flags.owndata)
        os.close(descriptor)

    def test_arrays_that_do_not_lie_in_a_row_are_put_in_one(self) -> None:
        values = numpy.arange(6, dtype=numpy.int64).reshape(2, 3)
        for view in (values.T, values[:, ::2], values[::-1]):
            self.assertEqual(Tensor.of("a", view).tolist(), view.tolist())
        self.assertEqual(Tensor.of("a", numpy.float32(2.5)).tolist(), 2.5)
        self.assertEqual(Tensor.of("a", numpy.zeros((0, 3), dtype=bool)).shape, (0, 3))
        self.assertEqual(Tensor.of("a", numpy.array([1.5], dtype=numpy.float16)).dtype.name, "f16")

    def test_bf16_becomes_float32(self) -> None:
        tensor = Tensor("t", (2,), DType(4, 16), memoryview(array.array("H", [0x3FC0, 0xC000])).cast("B"))
        self.assertEqual((tensor.numpy().dtype, tensor.numpy().tolist()), (numpy.float32, [1.5, -2.0]))


@unittest.skipIf(torch is None, "PyTorch is not installed")
class PyTorch(unittest.TestCase):
    def test_tensors_share_the_memory_and_keep_it(self) -> None:
        for values in (
            torch.arange(6, dtype=torch.float32).reshape(2, 3),
            torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
            torch.tensor([True, False]),
            torch.tensor(3, dtype=torch.int64),
            torch.zeros(0, 3),
        ):
            own = Tensor.of("a", values).copy()
            self.assertEqual(own.tolist(), values.tolist())
            found = torch.from_dlpack(own)
            self.assertTrue(torch.equal(found, values) and found.dtype == values.dtype)
            if values.numel():
                self.assertEqual(found.data_ptr(), torch.from_dlpack(own).data_ptr(), "nothing was copied")

    def test_the_memory_is_given_back(self) -> None:
        from host_plugin import _dlpack

        before = len(_dlpack._kept)
        own = Tensor.of("a", torch.ones(4)).copy()
        dies = weakref.ref(own)
        found = torch.from_dlpack(own)
        unused = own.__dlpack__()
        del own
        self.assertEqual((found.sum().item(), dies()), (4.0, None))
        del found, unused
        gc.collect()
        self.assertEqual(len(_dlpack._kept), before)

    def test_tensors_that_need_gradients_and_do_not_lie_in_a_row(self) -> None:
        values = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
        self.assertEqual(Tensor.of("a", values).tolist(), values.tolist())


if __name__ == "__main__":
    unittest.main()
