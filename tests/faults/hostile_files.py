"""Files that attack whoever decodes them."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

from hostile_server import MEGABYTE, packed
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *extra: bytes, kind: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture_as(kind: str, size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(stream, kind, **options)
    return stream.getvalue()


def tiff(entries: list[tuple[int, int, int, int]], after: int = 0, data: bytes = b"") -> bytes:
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", *each) for each in entries) + struct.pack("<I", after)
    return b"II*\0" + struct.pack("<I", 8) + body + data


def tiff_of(width: int, height: int, after: int = 0) -> bytes:
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 64),
    ]  # fmt: skip
    return tiff(entries, after, bytes(400))


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose scans are repeated: each is decoded over the whole picture."""
    whole = picture_as("JPEG", (3000, 3000), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + b"\xff\xd9"


def element(tag: int, kind: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    is_long = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    length = b"\0\0" + struct.pack("<I", len(value)) if is_long else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind + length + value


PLAIN, DEFLATED, JPEG_2000 = (
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.90",
)


def dicom(body: bytes, syntax: bytes = PLAIN, preamble: bytes = bytes(128) + b"DICM",
          before: bytes = b"") -> bytes:  # fmt: skip
    meta = element(0x00020001, b"OB", b"\0\1") + before + element(0x00020010, b"UI", syntax)
    if syntax == DEFLATED:
        pack = zlib.compressobj(1, wbits=-15)
        body = pack.compress(body) + pack.flush()
    return preamble + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + body


def dicom_pixels(rows: int, columns: int, data: bytes, bits: int = 8, frames: bytes = b"",
                 holder: bytes = b"OW") -> bytes:  # fmt: skip
    number = lambda tag, value: element(tag, b"US", struct.pack("<H", value))  # noqa: E731
    return b"".join((
        element(0x00080060, b"CS", b"CT"), number(0x00280002, 1),
        element(0x00280004, b"CS", b"MONOCHROME2"),
        element(0x00280008, b"IS", frames) if frames else b"", number(0x00280010, rows),
        number(0x00280011, columns), number(0x00280100, bits), number(0x00280101, bits),
        number(0x00280102, bits - 1), number(0x00280103, 0), element(0x7FE00010, holder, data),
    ))  # fmt: skip


def encapsulated(frame: bytes) -> bytes:
    frame += b"\0" * (len(frame) % 2)
    item = lambda data: b"\xfe\xff\x00\xe0" + struct.pack("<I", len(data)) + data  # noqa: E731
    value = item(b"") + item(frame) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + value


def with_frame(rows: int, columns: int, frame: bytes) -> bytes:
    plain = dicom_pixels(rows, columns, b"")
    return plain[: plain.index(b"\xe0\x7f\x10\x00")] + encapsulated(frame)


def codestream(rows: int, columns: int, components: int = 1) -> bytes:
    size = struct.pack(">HIIIIIIIIH", 0, columns, rows, 0, 0, columns, rows, 0, 0, components)
    each = b"\x07\x01\x01" * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", 38 + 3 * components) + size + each + bytes(64)


def jp2(hidden: bytes, shown: bytes) -> bytes:
    box = lambda kind, data: struct.pack(">I", len(data) + 8) + kind + data  # noqa: E731
    signature = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return signature + box(b"uuid", bytes(16) + hidden) + box(b"jp2c", shown)


def tiny_elements(count: int) -> bytes:
    pairs = ((0x0009 + 2 * (n >> 16), n & 0xFFFF) for n in range(count))
    return b"".join(struct.pack("<HH", *pair) + b"LO\0\0" for pair in pairs)


ZIPPED = b"PK\x03\x04" + bytes(200)
UPLOADS: dict[str, Callable[[], bytes]] = {
    "a PNG of a gigapixel": lambda: png(65_000, 65_000),
    "a PNG of four thousand million": lambda: png(2**31 - 1, 2),
    "a PNG without pixels": lambda: png(0, 0),
    "a PNG that is cut": lambda: png(100, 100, bytes(5000)),
    "a PNG with a bomb of text": lambda: png(
        3000, 3000, b"", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 * MEGABYTE)))
    ),
    "a PNG with a bomb of colours": lambda: png(
        3000, 3000, b"", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100 * MEGABYTE)))
    ),
    "a PNG of a chunk that lies": lambda: b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"IHDR",
    "a JPEG of a gigapixel": lambda: b"\xff\xd8\xff\xc0" + struct.pack(
        ">HBHHB", 11, 8, 65_000, 65_000, 1) + b"\1\x11\0" + b"\xff\xd9",
    "a JPEG that is cut": lambda: picture_as("JPEG", (100, 100))[:300],
    "a JPEG without end": lambda: b"\xff\xd8" + b"\xff" * MEGABYTE,
    "a TIFF of a gigapixel": lambda: tiff_of(60_000, 60_000),
    "a TIFF of a million tags": lambda: tiff([(n % 65536, 2, 9, 0) for n in range(60_000)]),
    "a TIFF of a tag of 4 GB": lambda: tiff([(256, 4, 2**30, 8), (257, 4, 1, 8)]),
    "a TIFF that points outside": lambda: b"II*\0\xff\xff\xff\xff",
    "a GIF": lambda: picture_as("GIF"),
    "a BMP": lambda: picture_as("BMP"),
    "a WEBP": lambda: picture_as("WEBP"),
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
    "an SVG that grows": lambda: b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><svg>&b;',
    "HTML": lambda: b"<html><script>alert(1)</script></html>",
    "HTML behind the head of a PNG": lambda: b"\x89PNG\r\n\x1a\n<html><script>1</script>",
    "PostScript": lambda: b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file",
    "a PDF": lambda: b"%PDF-1.7\n" + bytes(100),
    "a ZIP": lambda: ZIPPED,
    "a ZIP behind the head of a JPEG": lambda: b"\xff\xd8\xff" + ZIPPED,
    "gzip": lambda: packed(1),
    "a pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "nothing": lambda: b"",
    "one byte": lambda: b"\x89",
    "a deflated bomb": lambda: dicom(dicom_pixels(64, 64, bytes(100 * MEGABYTE)), DEFLATED),
    "a deflated bomb without a preamble": lambda: dicom(
        dicom_pixels(64, 64, bytes(100 * MEGABYTE)), DEFLATED, b""),
    "a deflated bomb behind a long head": lambda: dicom(
        dicom_pixels(64, 64, bytes(100 * MEGABYTE)), DEFLATED,
        before=element(0x00020002, b"OB", bytes(5000))),
    "deflated noise": lambda: dicom(b"", PLAIN).replace(PLAIN + b"\0", DEFLATED) + os.urandom(999),
    "a DICOM of a gigapixel": lambda: dicom(dicom_pixels(65_000, 65_000, b"1")),
    "a DICOM that is cut": lambda: dicom(dicom_pixels(500, 500, bytes(1000))),
    "a DICOM of a million frames": lambda: dicom(dicom_pixels(9, 9, bytes(81), frames=b"1000000")),
    "a DICOM of minus one frame": lambda: dicom(dicom_pixels(9, 9, bytes(80), frames=b"-1")),
    "a DICOM without pixels": lambda: dicom(element(0x00080060, b"CS", b"CT")),
    "a DICOM of 3 bits": lambda: dicom(dicom_pixels(9, 9, bytes(81), bits=3)),
    "a DICOM with text": lambda: dicom(
        element(0x00280301, b"CS", b"YES") + dicom_pixels(9, 9, bytes(81))),
    "a length of 4 GB": lambda: dicom(struct.pack("<HH", 8, 8) + b"OB\0\0\xfe\xff\xff\xff"),
    "sequences without end": lambda: dicom(
        (b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000),
    "JPEG 2000 of another size": lambda: dicom(
        with_frame(64, 64, codestream(30_000, 30_000)), JPEG_2000),
    "JPEG 2000 behind a box that lies": lambda: dicom(
        with_frame(64, 64, jp2(codestream(64, 64), codestream(30_000, 30_000))), JPEG_2000),
    "JPEG 2000 of 16,000 channels": lambda: dicom(
        with_frame(64, 64, codestream(64, 64, 16_000)), JPEG_2000),
    "JPEG 2000 of boxes without length": lambda: dicom(
        with_frame(64, 64, b"\0\0\0\0jP  " + bytes(100)), JPEG_2000),
    "JPEG 2000 of nothing": lambda: dicom(with_frame(64, 64, b"\xff\x4f\xff\x51"), JPEG_2000),
}  # fmt: skip
SLOW_UPLOADS: dict[str, Callable[[], bytes]] = {
    "two million elements": lambda: dicom(tiny_elements(2_000_000)),
    "two million elements, deflated": lambda: dicom(tiny_elements(2_000_000), DEFLATED),
    "two million elements in a sequence": lambda: dicom(
        element(0x52009229, b"SQ", b"\xfe\xff\x00\xe0" + struct.pack("<I", 8 * 2_000_000)
                + tiny_elements(2_000_000)) + dicom_pixels(9, 9, bytes(81))),
    "a deflated bomb of gigabytes": lambda: dicom(
        dicom_pixels(64, 64, bytes(1500 * MEGABYTE)), DEFLATED),
    "a JPEG of ten thousand scans": lambda: many_scans(10_000),
}  # fmt: skip
