import io
import struct
import zlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exgra_med.errors import DataError
from exgra_med.web.chat import ChatLog, ChatService
from exgra_med.web.limits import Limits
from exgra_med.web.pictures import PictureStore, read_picture

PIXELS = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
MANY = 1_000_000


def stored(kind: str, image: Image.Image = PIXELS, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gigapixel() -> bytes:
    """32,768 x 32,768 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 32768, 32768, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_pixels_come_back(kind: str) -> None:
    picture = read_picture(stored(kind), MANY)
    assert picture.mode == "RGB" and picture.size == (8, 6)
    difference = np.asarray(picture, int)[..., 0] - np.asarray(PIXELS, int)
    assert abs(difference).max() <= (0 if kind != "JPEG" else 12)


def test_nothing_of_the_file_but_pixels() -> None:
    exif = Image.Exif()
    exif[0x010E] = "Anna Patient"
    picture = read_picture(stored("JPEG", exif=exif), MANY)
    assert b"Anna" not in stored("JPEG", picture) and not picture.getexif()


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "PPM", "ICO"])
def test_other_formats_are_refused_by_their_bytes(kind: str) -> None:
    with pytest.raises(DataError, match="not a PNG, JPEG, TIFF or DICOM"):
        read_picture(stored(kind), MANY)


@pytest.mark.parametrize("content", [b"", b"<svg onload=alert(1)>", b"%PDF-1.7", b"#!/bin/sh\n"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="not a PNG"):
        read_picture(content, MANY)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_broken_file_is_a_sentence(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    content = stored(kind, noise)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_picture(content[: len(content) // 2], MANY)


def test_a_gigapixel_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DataError, match=r"more (pixels )?than"):
        read_picture(gigapixel(), 16_000_000)


def test_too_many_pixels_are_refused() -> None:
    with pytest.raises(DataError, match=r"^The image .* 8 x 6 pixels, more than 47.* at most 47 "):
        read_picture(stored("PNG"), 47)


def dicom(**tags: object) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 4, 5, 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PhotometricInterpretation, dataset.Modality = "MONOCHROME2", "CR"
    dataset.PatientName = "Secret^Anna"
    dataset.PixelData = bytes(range(20))
    for name, value in tags.items():
        setattr(dataset, name, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_dicom_is_known_by_its_bytes() -> None:
    picture = read_picture(dicom(), MANY)
    assert picture.size == (5, 4) and np.asarray(picture)[0, 0, 0] == 0


@pytest.mark.parametrize("tags", [{"BurnedInAnnotation": "YES"}, {"Modality": "US"}])
def test_burned_in_text_is_refused_without_naming_anyone(tags: dict[str, object]) -> None:
    with pytest.raises(DataError, match="text burned into its pixels") as caught:
        read_picture(dicom(**tags), MANY)
    assert "Anna" not in str(caught.value) and "Secret" not in str(caught.value)


def test_the_store_keeps_no_more_than_its_limit() -> None:
    megabyte = Image.new("RGB", (699, 500))  # 1,048,500 bytes
    pictures = PictureStore(3, 60)
    names = [pictures.put([megabyte]) for _ in range(3)]
    pictures.get(names[0])
    names.append(pictures.put([megabyte]))
    assert pictures.held_bytes <= 3 * 2**20
    with pytest.raises(DataError, match="no longer in memory"):
        pictures.get(names[1])
    assert pictures.get(names[0]) == [megabyte]
    for too_large in ([Image.new("RGB", (2000, 2000))], [megabyte] * 4):
        with pytest.raises(DataError, match="upload is larger than the memory"):
            pictures.put(too_large)
    several = pictures.put([megabyte, megabyte])
    assert pictures.get(several) == [megabyte, megabyte] and pictures.held_bytes <= 3 * 2**20


def test_pictures_are_forgotten_in_time_and_on_demand() -> None:
    now = [0.0]
    pictures = PictureStore(3, 10, lambda: now[0])
    one, two = pictures.put([PIXELS.convert("RGB")]), pictures.put([PIXELS.convert("RGB")])
    pictures.drop(one)
    pictures.drop(None)
    with pytest.raises(DataError):
        pictures.get(one)
    now[0] = 599
    pictures.get(two)
    now[0] = 1200
    with pytest.raises(DataError):
        pictures.get(two)
    assert pictures.held_bytes == 0


def test_names_cannot_be_guessed() -> None:
    pictures = PictureStore(3, 10)
    names = {pictures.put([PIXELS.convert("RGB")]) for _ in range(50)}
    assert len(names) == 50 and min(map(len, names)) >= 20


def test_a_kept_log_is_private_and_deletes_what_is_old(tmp_path: Path) -> None:
    day = [date(2026, 1, 1)]
    (tmp_path / "notes.txt").write_text("not ours")
    log = ChatLog(tmp_path / "log", 30, lambda: day[0])
    log.write(question="Wo?", answers=["links"])
    first = tmp_path / "log" / "chat-2026-01-01.jsonl"
    assert first.read_text(encoding="utf-8") == '{"question": "Wo?", "answers": ["links"]}\n'
    assert first.stat().st_mode & 0o077 == 0 and first.parent.stat().st_mode & 0o077 == 0
    day[0] = date(2026, 1, 31)
    log.write(question="a")
    assert first.exists()
    day[0] = date(2026, 2, 1)
    log.write(question="b")
    assert not first.exists()
    assert [path.name for path in sorted(first.parent.iterdir())] == [
        "chat-2026-01-31.jsonl",
        "chat-2026-02-01.jsonl",
    ]
    ChatLog(tmp_path / "log", 1, lambda: date(2026, 3, 1))
    assert not list(first.parent.iterdir())
    assert (tmp_path / "notes.txt").exists()


def png(size: int) -> bytes:
    return stored("PNG", Image.new("RGB", (size, size)))


def read(paths: list[str], folder: Path, limits: Limits) -> list[Image.Image]:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    from exgra_med.web.page import read_uploads

    return read_uploads(paths, folder, ChatService([], limits))


def uploaded(folder: Path, *contents: bytes) -> list[str]:
    paths = [folder / f"Anna Secret {number}.png" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def test_several_uploads_are_read_in_order_and_deleted(tmp_path: Path) -> None:
    paths = uploaded(tmp_path, png(3), png(5), png(4))
    pictures = read(paths, tmp_path, Limits())
    assert [picture.width for picture in pictures] == [3, 5, 4]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("contents", "limits", "message"),
    [
        ((png(3), b"no picture", png(4)), Limits(), "^File 2 of 3: The upload is not a PNG"),
        ((b"no picture",), Limits(), "^The upload is not a PNG"),
        ((png(3),) * 3, Limits(max_pictures=2), "has 3 files, and a conversation at most 2"),
        ((png(3), png(3) + bytes(2**20)), Limits(max_upload_megabytes=1), "more than 1 MB"),
        ((png(3), png(90)), Limits(max_pixels=100), "^File 2 of 2: .* 90 x 90 pixels"),
        ((), Limits(), "There is no file"),
        ((png(700), png(700), b"never read"), Limits(max_held_megabytes=2), "larger than the mem"),
    ],
)
def test_a_refused_upload_leaves_no_file_behind(
    contents: tuple[bytes, ...], limits: Limits, message: str, tmp_path: Path
) -> None:
    paths = uploaded(tmp_path, *contents)
    with pytest.raises(DataError, match=message) as caught:
        read(paths, tmp_path, limits)
    assert not list(tmp_path.iterdir()) and "Anna" not in str(caught.value)


def test_a_path_that_is_no_upload_is_neither_read_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "secret.png").write_bytes(png(3))
    paths = [*uploaded(tmp_path / "uploads", png(3)), str(tmp_path / "secret.png")]
    with pytest.raises(DataError, match="not an upload of this page"):
        read(paths, tmp_path / "uploads", Limits())
    assert (tmp_path / "secret.png").exists() and not list((tmp_path / "uploads").iterdir())
