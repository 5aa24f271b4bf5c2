"""Writes the digits of ../digits as PNG images, one folder per class, for run.toml.

    python3 make_images.py [FOLDER]

FOLDER, by default `digits` next to this file, gets `train/0/0000.png` … and `test/0/0000.png` …: every fifth image is one of
the test split. Needs only the Python standard library.
"""

import csv
import gzip
import struct
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).parent
SIDE = 8
# Pixels are counts from 0 to 16.
BRIGHTEST = 16


def chunk(name, content):
    """A chunk of a PNG file: length, name, content, checksum (PNG specification, section 5.3)."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(rows):
    """A grayscale PNG of eight bits, from rows of bytes."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    # Each row starts with its filter; 0 is none.
    content = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "digits"
    with gzip.open(HERE.parent / "digits" / "digits.csv.gz", "rt", newline="") as file:
        samples = [[int(float(field)) for field in row] for row in csv.reader(file)]
    for index, (*pixels, digit) in enumerate(samples):
        values = [pixel * 255 // BRIGHTEST for pixel in pixels]
        rows = [values[start : start + SIDE] for start in range(0, len(values), SIDE)]
        place = folder / ("test" if index % 5 == 4 else "train") / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index:04}.png").write_bytes(png(rows))
    print(f"{len(samples)} images in {folder}")


if __name__ == "__main__":
    main()
