"""The codec, against random values and random bytes."""

import math
import random
import struct
import unittest
from typing import Any

from host_plugin import _messagepack
from host_plugin._messagepack import DEEPEST, MessagePackError, decode, encode


def some_value(chance: random.Random, depth: int = 0) -> Any:
    """A random value of every type that crosses."""
    kinds = 7 if depth > 4 else 9
    kind = chance.randrange(kinds)
    if kind == 0:
        return None
    if kind == 1:
        return chance.random() < 0.5
    if kind == 2:
        magnitude = 1 << chance.randrange(65)
        return max(-(1 << 63), min((1 << 64) - 1, chance.choice((-1, 1)) * magnitude + chance.randrange(-2, 3)))
    if kind == 3:
        return struct.unpack("<d", chance.randbytes(8))[0]
    if kind == 4:
        return "".join(chr(chance.choice((65, 0xE9, 0x20AC, 0x1F600))) for _ in range(chance.choice((0, 3, 31, 32, 70, 300))))
    if kind == 5:
        return chance.randbytes(chance.choice((0, 3, 255, 256, 70000)))
    if kind == 6:
        return chance.choice((0.0, -0.0, math.inf, -math.inf, 0.1))
    length = chance.choice((0, 1, 2, 3, 15, 16, 17))
    if kind == 7:
        return [some_value(chance, depth + 1) for _ in range(length)]
    return {chance.choice((f"k{index}", index)): some_value(chance, depth + 1) for index in range(length)}


def same(first: Any, second: Any) -> bool:
    """Equality in which NaN is NaN, and zero has its sign."""
    if isinstance(first, float) and isinstance(second, float):
        return struct.pack("<d", first) == struct.pack("<d", second) or (math.isnan(first) and math.isnan(second))
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    return type(first) is type(second) and bool(first == second)


class MessagePack(unittest.TestCase):
    def test_every_value_survives(self) -> None:
        chance = random.Random(1)
        for _ in range(2000):
            value = some_value(chance)
            self.assertTrue(same(decode(encode(value)), value), value)

    def test_long_arrays_and_maps_survive(self) -> None:
        for value in (list(range(70000)), {str(index): index for index in range(70000)}, "a" * 70000):
            self.assertEqual(decode(encode(value)), value)

    def test_random_bytes_are_a_value_or_an_error(self) -> None:
        chance = random.Random(2)
        for _ in range(20000):
            data = chance.randbytes(chance.randrange(12))
            try:
                decode(data)
            except MessagePackError:
                pass

    def test_damaged_values_are_a_value_or_an_error(self) -> None:
        chance = random.Random(3)
        for _ in range(300):
            data = bytearray(encode(some_value(chance))[:4000])
            for _ in range(5):
                data[chance.randrange(len(data))] = chance.randrange(256)
                try:
                    decode(data[: chance.randrange(len(data) + 1)])
                except MessagePackError:
                    pass

    def test_the_bytes_are_those_of_the_specification(self) -> None:
        for value, expected in (
            (None, "c0"),
            (True, "c3"),
            (127, "7f"),
            (128, "cc80"),
            (65536, "ce00010000"),
            (-32, "e0"),
            (-33, "d0df"),
            (-(1 << 63), "d38000000000000000"),
            (1.5, "cb3ff8000000000000"),
            ("é", "a2c3a9"),
            (b"\x01", "c40101"),
            ([1, "a"], "9201a161"),
            ({"a": []}, "81a16190"),
        ):
            self.assertEqual(encode(value).hex(), expected, value)
        self.assertEqual(decode(bytes.fromhex("ca3fc00000")), 1.5)

    def test_a_length_that_cannot_be_true_is_refused_before_anything_is_made(self) -> None:
        for data in ("ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "9f"):
            with self.assertRaises(MessagePackError):
                decode(bytes.fromhex(data))

    def test_values_lie_in_each_other_only_so_deep(self) -> None:
        value: Any = None
        for _ in range(DEEPEST):
            value = [value]
        self.assertEqual(decode(encode(value)), value)
        with self.assertRaisesRegex(MessagePackError, "lie in each other"):
            encode([value])
        with self.assertRaisesRegex(MessagePackError, "lie in each other"):
            decode(b"\x91" * 100000 + b"\xc0")

    def test_what_has_no_form_is_an_error(self) -> None:
        for value in (object(), 1 << 64, -(1 << 63) - 1, {"a": {1, 2}}):
            with self.assertRaises(MessagePackError):
                encode(value)
        for data in (b"", b"\xc1", b"\xc0\xc0", b"\xc7\x00\x00", b"\x81\x90\x00"):
            with self.assertRaises(MessagePackError):
                decode(data)

    def test_text_that_is_no_utf_8_is_replaced(self) -> None:
        self.assertEqual(decode(b"\xa1\xff"), "\ufffd")
        self.assertEqual(_messagepack.decode(encode("\ud800")), "?")


if __name__ == "__main__":
    unittest.main()
