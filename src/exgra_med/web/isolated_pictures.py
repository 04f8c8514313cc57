"""Uploads are decoded in a process of its own, with limits on its memory and its time.

Decoders check what they are told to check. A limit of the system also holds for what nobody thought
of: a file that costs too much costs that process, and the page goes on. It is started at the first
upload and serves all further ones; where it ends, that picture is refused and the next one starts
it anew.
"""

import json
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from PIL import Image

from exgra_med.errors import DataError, ExgraMedError

SECONDS_PER_PICTURE = 30.0
"""Of the processor and of the clock; the largest radiograph takes two."""
_BYTES_PER_PIXEL = 64
"""What decoding takes at most: a DICOM picture is several arrays of 8 bytes on its way."""
_BYTES_BESIDE = 512 * 2**20
"""The process itself, and the file."""
_HEAD = struct.Struct("<QQ")


class PictureProcess:
    """One process that decodes pictures, one after the other, for all threads of this one."""

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, content: bytes) -> Image.Image:
        """See `pictures.read_picture`.

        Raises:
            DataError: as there, and where decoding takes too much time or memory.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            watch = threading.Timer(SECONDS_PER_PICTURE, process.kill)
            watch.start()
            try:
                process.stdin.write(_HEAD.pack(len(content), self.max_pixels) + content)
                process.stdin.flush()
                head, pixels = _receive(process.stdout, 3 * self.max_pixels)
                if "problem" not in head:
                    return Image.frombytes("RGB", tuple(head["size"]), pixels)
            except (OSError, EOFError, ValueError, KeyError, TypeError):
                self._end()
                raise DataError(
                    "The picture takes too much time or memory to decode.",
                    "Let another program save it anew.",
                ) from None
            finally:
                watch.cancel()
        raise DataError(head["problem"], head["hint"])

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # What decoders print may quote the file.
                stderr=subprocess.DEVNULL,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
            )
        return self._process


def _receive(stream: IO[bytes], most_bytes: int) -> tuple[dict[str, Any], bytes]:
    sizes = stream.read(_HEAD.size)
    if len(sizes) < _HEAD.size:
        raise EOFError
    of_head, of_pixels = _HEAD.unpack(sizes)
    # A decoder that was taken over would write here.
    if of_head > 2**16 or of_pixels > most_bytes:
        raise ValueError
    head, pixels = stream.read(of_head), stream.read(of_pixels)
    if len(head) < of_head or len(pixels) < of_pixels:
        raise EOFError
    return json.loads(head), pixels


def limit_process(max_pixels: int) -> None:
    """Take the memory and the time away that no picture needs, where the system can."""
    try:
        import resource
    except ImportError:
        return
    most_bytes = _BYTES_BESIDE + _BYTES_PER_PIXEL * max_pixels
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve() -> None:
    """What the process does, until its input ends."""
    from exgra_med.web.pictures import read_picture

    limited = False
    while len(sizes := sys.stdin.buffer.read(_HEAD.size)) == _HEAD.size:
        size, max_pixels = _HEAD.unpack(sizes)
        if not limited:
            limit_process(max_pixels)
            limited = True
        content = sys.stdin.buffer.read(size)
        pixels = b""
        try:
            picture = read_picture(content, max_pixels)
            pixels = picture.tobytes()
            head: dict[str, Any] = {"size": picture.size}
        except ExgraMedError as error:
            head = {"problem": error.message, "hint": error.hint}
        except MemoryError:
            # What was taken may still be held.
            return
        told = json.dumps(head).encode()
        sys.stdout.buffer.write(_HEAD.pack(len(told), len(pixels)) + told)
        sys.stdout.buffer.write(pixels)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
