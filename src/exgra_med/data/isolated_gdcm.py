"""gdcm in a process of its own: broken JPEG makes it end its process, which no `except` stops.

It alone decodes JPEG Lossless under a permissive licence. The process is started at the first frame
and serves all further ones; where it dies, the frame is refused and the next one starts it anew.
Only what describes the pixels is sent there: no element of the patient.
"""

import io
import os
import struct
import subprocess
import sys
import threading
from typing import IO, Any

import numpy as np

SECONDS_PER_FRAME = 60.0
"""A frame that takes longer is broken; the process is ended."""

_SIZE = struct.Struct("<Q")
_PIXEL_GROUP = 0x0028


class Worker:
    """One process that decodes frames, for all threads of this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def decode(self, dataset: Any, frame: bytes) -> np.ndarray | None:
        """The pixels of one encoded frame, as `pydicom.pixels.pixel_array` gives them.

        Args:
            dataset: whose elements of group 0028 and transfer syntax describe the frame.

        Returns:
            The array, or None where gdcm cannot decode it.
        """
        request = single_frame(dataset, frame)
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            watch = threading.Timer(SECONDS_PER_FRAME, process.kill)
            watch.start()
            try:
                _send(process.stdin, request)
                answer = _receive(process.stdout)
            except OSError:
                answer = None
            finally:
                watch.cancel()
            if answer is None:
                # It may still be ending; nothing more is asked of it.
                process.kill()
                process.wait()
                self._process = None
        return np.load(io.BytesIO(answer), allow_pickle=False) if answer else None

    def _running(self) -> "subprocess.Popen[bytes]":
        # After a fork the pipes would have two users.
        mine = self._process is not None and self._owner == os.getpid()
        if self._process is None or not mine or self._process.poll() is not None:
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                # `-P`: the folder of this file is no place to look for modules.
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # What libjpeg and gdcm print would stand between a command's own lines.
                stderr=subprocess.DEVNULL,
            )
        return self._process


def single_frame(dataset: Any, frame: bytes) -> bytes:
    """A DICOM file of nothing but one frame and what describes its pixels."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate

    small = Dataset()
    for element in dataset:
        if element.tag.group == _PIXEL_GROUP:
            small.add(element)
    small.NumberOfFrames = 1
    small.PixelData = encapsulate([frame])
    small.file_meta = FileMetaDataset()
    small.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    stream = io.BytesIO()
    small.save_as(stream, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(_SIZE.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """The next message, empty where the other side could not do it; None where it has ended."""
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (size,) = _SIZE.unpack(head)
    content = stream.read(size)
    return content if len(content) == size else None


def serve() -> None:
    """What the process does, until its input ends."""
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    while request := _receive(sys.stdin.buffer):
        answer = io.BytesIO()
        try:
            dataset = dcmread(io.BytesIO(request), force=True)
            np.save(answer, pixel_array(dataset, index=0, raw=False, decoding_plugin="gdcm"))
        except Exception:
            # Whatever a broken frame raises: the caller refuses it, in words of its own.
            answer = io.BytesIO()
        _send(sys.stdout.buffer, answer.getvalue())


WORKER = Worker()

if __name__ == "__main__":
    serve()
