"""Images as PNG files inside the page."""

import struct
import zlib
from base64 import b64encode

from rpat_cli.diagnostics.blocks import Raster

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2}
"""Of PNG, by the number of channels: gray, and red-green-blue."""


def data_uri(image: Raster) -> str:
    """The address of an image that is the image."""
    return f"data:image/png;base64,{b64encode(png(image)).decode()}"


def png(image: Raster) -> bytes:
    """An image as a PNG file (ISO/IEC 15948), 8 bits for each channel, every line unfiltered.

    Raises `KeyError` for other than 1 or 3 channels.
    """
    bytes_per_line = image.width * image.channels
    lines = [
        b"\0" + image.pixels[start : start + bytes_per_line]
        for start in range(0, len(image.pixels), bytes_per_line)
    ]
    color = _COLOR_TYPES[image.channels]
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, color, 0, 0, 0)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"".join(lines), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
