import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.errors import DataError


def gigapixel_png() -> bytes:
    """A PNG header of 32,000 x 32,000 pixels with no pixels behind it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 32000, 32000, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 2**20) + b"IDAT" + b"x" * 50


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "sub/a b.jpg")
    Image.fromarray(noise).save(tmp_path / "outside.jpg")
    return ImageFolder(root, max_pixels=10_000)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(folder: ImageFolder, mode: str) -> None:
    name = "x.jpg" if mode == "CMYK" else "x.png"
    Image.new(mode, (5, 7)).save(folder.root / name)
    image = folder.open(name)
    assert (image.mode, image.size) == ("RGB", (5, 7))


def test_an_image_in_a_folder_below_is_read_whole(folder: ImageFolder) -> None:
    assert folder.open("sub/a b.jpg").size == (48, 64)
    assert folder.read_bytes("sub/a b.jpg") == (folder.root / "sub/a b.jpg").read_bytes()


@pytest.mark.parametrize(
    "name, message",
    [
        ("../outside.jpg", "leaves the image folder"),
        ("sub/../../outside.jpg", "leaves the image folder"),
        ("/etc/passwd", "leaves the image folder"),
        ("..\\outside.jpg", "leaves the image folder"),
        ("http://169.254.169.254/latest/meta-data", "is a URL"),
        ("file:///etc/passwd", "is a URL"),
        ("C:/x.jpg", "is a URL or a drive"),
        ("", "empty"),
        ("a\0.jpg", "is not a name"),
        ("sub", "is not a file"),
        ("no.jpg", "is missing"),
    ],
)
def test_no_name_leaves_the_folder(folder: ImageFolder, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        folder.open(name, "vqa-rad/train/7")
    assert str(caught.value).startswith("vqa-rad/train/7: ")


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(folder: ImageFolder) -> None:
    (folder.root / "out.jpg").symlink_to(folder.root.parent / "outside.jpg")
    (folder.root / "in.jpg").symlink_to(folder.root / "sub/a b.jpg")
    with pytest.raises(DataError, match="link that leaves"):
        folder.open("out.jpg")
    assert folder.open("in.jpg").size == (48, 64)


def test_a_fifo_is_refused_without_waiting_on_it(folder: ImageFolder) -> None:
    os.mkfifo(folder.root / "pipe.jpg")
    with pytest.raises(DataError, match="is not a file"):
        folder.open("pipe.jpg")


@pytest.mark.parametrize(
    "content, message",
    [
        (gigapixel_png(), "pixels"),
        (b"", "the file is empty"),
        (b"GIF89a" + b"\0" * 50, "it is a GIF"),
        (b"%PDF-1.4 not an image", "it is a PDF"),
    ],
    ids=["bomb", "empty", "gif", "pdf"],
)
def test_what_is_not_an_image_is_refused(folder: ImageFolder, content: bytes, message: str) -> None:
    (folder.root / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=message):
        folder.open("x.png")


def test_the_pixel_cap_holds_before_decoding(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (101, 100)).save(folder.root / "big.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match="101 x 100 pixels, more than 10000"):
        folder.open("big.png")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_truncated_file_is_refused(folder: ImageFolder, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    content = stream.getvalue()
    (folder.root / "cut").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        folder.open("cut")
    assert str(folder.root.parent) not in caught.value.message


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(folder: ImageFolder, ending: str) -> None:
    values = np.array([[1000, 1500], [2000, 3000]], dtype=np.uint16)
    Image.fromarray(values).save(folder.root / f"deep.{ending}")
    image = folder.open(f"deep.{ending}")
    assert image.mode == "RGB"
    assert np.asarray(image)[..., 0].tolist() == [[0, 64], [128, 255]]
