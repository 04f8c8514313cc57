"""Volumes, cines and series as several images, and what a prepared folder holds of pictures."""

import csv
import gzip
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_cases import (
    HEAD,
    MAX_PIXELS,
    RAMP,
    axial,
    dicom_bytes,
    nifti_bytes,
    turned,
    with_alpha,
)
from PIL import Image

from exgra_med.data.images import ImageFolder, stored_image
from exgra_med.data.prepare import prepare
from exgra_med.data.selection import evenly_spaced
from exgra_med.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    root = tmp_path / "source" / "images"
    root.mkdir(parents=True)
    return ImageFolder(root, MAX_PIXELS)


def needs(package: str) -> Any:
    return pytest.importorskip(package, reason="the extra [dicom] is not installed")


@pytest.mark.parametrize(
    "wanted, available, chosen",
    [
        (1, 1, [0]),
        (1, 9, [4]),
        (3, 9, [1, 4, 7]),
        (2, 5, [1, 3]),
        (4, 5, [0, 1, 3, 4]),
        (5, 5, [0, 1, 2, 3, 4]),
        (8, 100, [6, 18, 31, 43, 56, 68, 81, 93]),
    ],
)
def test_the_middle_of_each_part_is_taken(wanted: int, available: int, chosen: list[int]) -> None:
    assert evenly_spaced(wanted, available, "it", "slices") == chosen


def test_no_more_than_there_are_can_be_taken() -> None:
    with pytest.raises(DataError, match="x: there are 3 slices, not 4"):
        evenly_spaced(4, 3, "x", "slices")


def test_a_volume_becomes_slices(folder: ImageFolder) -> None:
    needs("nibabel")
    (folder.root / "head.nii").write_bytes(nifti_bytes(codes="PIR"))
    assert folder.expand("head.nii#slices=3") == [
        "head.nii#plane=axial,slice=1",
        "head.nii#plane=axial,slice=3",
        "head.nii#plane=axial,slice=5",
    ]
    assert folder.expand("head.nii#plane=sagittal,slices=2,window=lung") == [
        "head.nii#plane=sagittal,slice=1,window=lung",
        "head.nii#plane=sagittal,slice=3,window=lung",
    ]
    assert (np.asarray(folder.open("head.nii#plane=axial,slice=5"))[..., 0] == axial()).all()
    with pytest.raises(DataError, match="there are 4 slices, not 5"):
        folder.expand("head.nii#slices=5,axis=0")
    with pytest.raises(DataError, match="'frames' selects nothing in a NIfTI file"):
        folder.expand("head.nii#frames=2")
    with pytest.raises(DataError, match="both one and several"):
        folder.expand("head.nii#slices=2,slice=1")
    with pytest.raises(DataError, match="both frames and slices"):
        folder.expand("head.nii#slices=2,frames=2")


def test_a_time_point_is_kept(folder: ImageFolder) -> None:
    needs("nibabel")
    (folder.root / "f.nii").write_bytes(nifti_bytes(np.stack([HEAD, HEAD], axis=-1)))
    assert folder.expand("f.nii#slices=1,volume=1") == ["f.nii#plane=axial,slice=3,volume=1"]
    with pytest.raises(DataError, match="holds 2 volumes"):
        folder.expand("f.nii#slices=1")


def test_a_volume_that_would_fill_the_memory_is_refused_by_its_header(
    folder: ImageFolder,
) -> None:
    needs("nibabel")
    content = bytearray(nifti_bytes())
    content[42:48] = struct.pack("<3h", 32_767, 32_767, 32_767)
    for name, packed in (("big.nii", bytes(content)), ("big.nii.gz", gzip.compress(content))):
        (folder.root / name).write_bytes(packed)
        with pytest.raises(DataError, match="takes more than 4294967296 bytes"):
            folder.open(f"{name}#plane=axial,slice=5")


def test_a_packed_volume_that_changes_is_read_anew(folder: ImageFolder) -> None:
    needs("nibabel")
    path = folder.root / "head.nii.gz"
    for number, volume in enumerate((HEAD, HEAD[::-1], HEAD)):
        path.write_bytes(gzip.compress(nifti_bytes(volume)))
        os.utime(path, ns=(number, number))
        shown = np.asarray(folder.open("head.nii.gz#plane=axial,slice=5"))[..., 0]
        assert (shown == axial(volume)).all()


def test_frames_of_a_cine_and_pages_of_a_tiff(folder: ImageFolder) -> None:
    needs("pydicom")
    (folder.root / "cine").write_bytes(dicom_bytes(np.stack([RAMP] * 6)))
    assert folder.expand("cine#frames=2") == ["cine#frame=1", "cine#frame=4"]
    pages = [Image.new("L", (2, 2), n) for n in range(3)]
    pages[0].save(folder.root / "s.tif", save_all=True, append_images=pages[1:])
    assert folder.expand("s.tif#frames=3") == [f"s.tif#frame={n}" for n in range(3)]
    with pytest.raises(DataError, match="'slices' selects nothing in this file"):
        folder.expand("s.tif#slices=3")
    with pytest.raises(DataError, match="there are 3 frames, not 4"):
        folder.expand("s.tif#frames=4")


def test_a_name_that_asks_for_nothing_stands_for_itself(folder: ImageFolder) -> None:
    for name in ("a.png", "odd#1.png", "cine.dcm#frame=3", "no such file"):
        assert folder.expand(name) == [name]


# A folder with one DICOM series.

AXIAL = [1, 0, 0, 0, 1, 0]


def add_slice(root: Path, name: str, position: list[float], **tags: Any) -> None:
    root.mkdir(exist_ok=True)
    tags = {"ImageOrientationPatient": AXIAL, "SeriesInstanceUID": "1.2.3.4"} | tags
    pixels = tags.pop("pixels", RAMP + int(position[2]))
    (root / name).write_bytes(dicom_bytes(pixels, ImagePositionPatient=position, **tags))


def test_a_series_is_sorted_by_position_and_not_by_name(folder: ImageFolder) -> None:
    needs("pydicom")
    series = folder.root / "ct"
    # Named from the head down, as scanners often number.
    for number in range(6):
        add_slice(series, f"IM{number}.dcm", [0, 0, -10.0 * number])
    (series / ".DS_Store").write_bytes(b"x")
    (series / "DICOMDIR").write_bytes(b"x")
    for name in ("ct/#slices=3", "ct#slices=3"):
        assert folder.expand(name) == ["ct/IM4.dcm", "ct/IM2.dcm", "ct/IM0.dcm"]
    assert folder.expand("ct/#slices=1,window=brain") == ["ct/IM2.dcm#window=brain"]
    itself = ImageFolder(series, folder.max_pixels)
    assert itself.expand("#slices=2") == ["IM4.dcm", "IM1.dcm"]
    with pytest.raises(DataError, match="there are 6 slices, not 7"):
        folder.expand("ct/#slices=7")
    with pytest.raises(DataError, match="'plane' selects nothing in a folder"):
        folder.expand("ct/#slices=2,plane=coronal")
    with pytest.raises(DataError, match="is not a file"):
        folder.open("ct")


@pytest.mark.parametrize(
    "axes, far",
    [
        # Coronal: counted from the back. DICOM's second axis runs to the back.
        ([1, 0, 0, 0, 0, -1], [0, 10, 0]),
        # Sagittal: counted from the patient's left. DICOM's first axis runs to the left.
        ([0, 1, 0, 0, 0, -1], [10, 0, 0]),
        # Axial, rows and columns swapped: still from the feet.
        ([0, 1, 0, 1, 0, 0], [0, 0, -10]),
    ],
)
def test_every_plane_is_counted_as_in_nifti(
    folder: ImageFolder, axes: list[float], far: list[float]
) -> None:
    needs("pydicom")
    series = folder.root / "s"
    add_slice(series, "a", [0, 0, 0], ImageOrientationPatient=axes)
    add_slice(series, "b", far, ImageOrientationPatient=axes)
    assert folder.expand("s/#slices=2") == ["s/b", "s/a"]


@pytest.mark.parametrize(
    "name, position, tags, message",
    [
        ("x", [0, 0, 10], {"SeriesInstanceUID": "1.2.9"}, "more than one series"),
        ("x", [0, 0, 10], {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "or orientation"),
        ("x", [0, 0, 0], {}, "holds 'a' and 'x' at one position"),
        ("x", [0, 0, 10], {"unplaced": True}, "'x', which has no position"),
        ("x", [0, 0, 10], {"pixels": np.stack([RAMP, RAMP])}, "'x', which has several frames"),
    ],
)
def test_what_is_no_series_is_refused(
    folder: ImageFolder, name: str, position: list[float], tags: dict, message: str
) -> None:
    needs("pydicom")
    add_slice(folder.root / "s", "a", [0, 0, 0])
    if "unplaced" in tags:
        (folder.root / "s" / name).write_bytes(dicom_bytes(RAMP))
    else:
        add_slice(folder.root / "s", name, position, **tags)
    with pytest.raises(DataError, match=message):
        folder.expand("s/#slices=1")


def test_other_files_in_a_series_are_refused(folder: ImageFolder) -> None:
    needs("pydicom")
    add_slice(folder.root / "s", "a", [0, 0, 0])
    (folder.root / "s" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"'notes\.txt', which is not a DICOM file"):
        folder.expand("s/#slices=1")
    (folder.root / "s" / "notes.txt").unlink()
    (folder.root.parent / "outside.dcm").write_bytes(dicom_bytes(RAMP))
    (folder.root / "s" / "b").symlink_to(folder.root.parent / "outside.dcm")
    with pytest.raises(DataError, match="link that leaves"):
        folder.expand("s/#slices=1")
    (folder.root / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        folder.expand("empty/#slices=1")
    with pytest.raises(DataError, match="leaves the image folder"):
        folder.expand("../#slices=1")


# Prepared folders.


def table(folder: ImageFolder, *names: str) -> Path:
    source = folder.root.parent
    with (source / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "question", "answer"])
        writer.writerows([name, "What is seen?", "nothing"] for name in names)
    return source


def test_a_record_gets_as_many_images_as_its_name_asks_for(
    folder: ImageFolder, tmp_path: Path
) -> None:
    needs("nibabel")
    (folder.root / "head.nii").write_bytes(nifti_bytes())
    Image.new("L", (2, 2), 9).save(folder.root / "a.png")
    source = table(folder, "head.nii#slices=2", "a.png", "head.nii#slices=1,plane=sagittal")
    prepared = prepare("custom", source, tmp_path / "out")
    images = [record.image for record in prepared.records("train")]
    assert images == [
        ["head.nii-plane-axial-slice-1.png", "head.nii-plane-axial-slice-4.png"],
        "a.png",
        "head.nii-plane-sagittal-slice-2.png",
    ]
    shown = prepared.image_folder(MAX_PIXELS)
    for name in ("head.nii-plane-axial-slice-4.png", "a.png"):
        assert (tmp_path / "out" / "images" / name).read_bytes().startswith(b"\x89PNG")
        shown.open(name)
    assert prepared.manifest["images"]["count"] == 4


def test_a_placeholder_of_a_volume_becomes_as_many_as_it_has_images(
    folder: ImageFolder, tmp_path: Path
) -> None:
    needs("nibabel")
    (folder.root / "head.nii").write_bytes(nifti_bytes())
    Image.new("L", (2, 2), 9).save(folder.root / "a.png")
    turns = [
        {"role": "user", "text": "Is <image> older than <image>?"},
        {"role": "assistant", "text": "Yes."},
        {"role": "user", "text": "And <image>?"},
        {"role": "assistant", "text": "No."},
    ]
    images = ["a.png", "head.nii#slices=3", "head.nii#slices=1"]
    line = json.dumps({"id": "1", "image": images, "turns": turns})
    (folder.root.parent / "train.jsonl").write_text(line + "\n", encoding="utf-8")
    (record,) = prepare("custom", folder.root.parent, tmp_path / "out").records("train")
    assert [turn.text for turn in record.turns[::2]] == [
        "Is <image> older than <image><image><image>?",
        "And <image>?",
    ]
    assert len(record.images) == 5 and record.images[0] == "a.png"
    assert record.images[-1] == "head.nii-plane-axial-slice-3.png"
    assert len(record.question_images) == 4


def test_a_selection_that_cannot_be_met_is_one_sentence(
    folder: ImageFolder, tmp_path: Path
) -> None:
    needs("nibabel")
    (folder.root / "head.nii").write_bytes(nifti_bytes())
    source = table(folder, "head.nii#slices=99")
    with pytest.raises(DataError, match="there are 6 slices, not 99"):
        prepare("custom", source, tmp_path / "out")


def test_what_any_viewer_shows_alike_is_stored_unchanged(folder: ImageFolder) -> None:
    for name, image in {
        "a.png": Image.new("L", (3, 2)),
        "b.JPG": Image.new("RGB", (3, 2)),
        "c.bmp": Image.new("RGB", (3, 2)),
        "d.webp": Image.new("RGB", (3, 2)),
        "e.jpg": Image.new("P", (3, 2)),
    }.items():
        kind = {"jpg": "JPEG", "e": "PNG"}.get(name[-3:].lower(), name[-3:].upper())
        image.save(
            folder.root / name, "PNG" if name == "e.jpg" else {"EBP": "WEBP"}.get(kind, kind)
        )
        assert folder.stored_name(name) == name
        assert folder.read_bytes(name) == (folder.root / name).read_bytes()


def test_what_viewers_show_otherwise_is_stored_as_png(folder: ImageFolder) -> None:
    photo = turned("jpg", 6)(folder.root)
    Image.new("RGB", (3, 2)).save(folder.root / "a.tif")
    with_alpha("RGBA")().save(folder.root / "b.png")
    Image.fromarray(np.uint16([[0, 9]])).save(folder.root / "c.png")
    Image.new("CMYK", (3, 2)).save(folder.root / "d.jpg")
    Image.new("RGB", (3, 2)).save(folder.root / "IM1", "PNG")
    for name in (photo, "a.tif", "b.png", "c.png", "d.jpg", "IM1"):
        assert folder.stored_name(name) == name.removesuffix(".png") + ".png"
        content = folder.read_bytes(name)
        assert content.startswith(b"\x89PNG") and b"Exif" not in content
        # A viewer that knows nothing of all this sees what the project sees.
        (folder.root / "stored.png").write_bytes(content)
        plain = Image.open(folder.root / "stored.png")
        assert plain.mode in ("L", "RGB") and not plain.getexif() and not plain.info
        assert plain.convert("RGB").tobytes() == folder.open(name).tobytes()
        assert stored_image(folder.root / name, MAX_PIXELS, name)[1] == content


def test_two_images_cannot_take_one_name(folder: ImageFolder, tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(folder.root / "a.tif")
    Image.new("RGB", (3, 2)).save(folder.root / "a.tif.png")
    source = table(folder, "a.tif", "a.tif.png")
    with pytest.raises(DataError, match=r"would both be 'a\.tif\.png'"):
        prepare("custom", source, tmp_path / "out")


@pytest.mark.parametrize("there, named", [("a.png", "a.PNG"), ("b.jpg", "b.jpeg"), ("c.png", "c"),
                                          ("d.DCM", "d.dcm"), ("E.JPG", "E.jpg")])  # fmt: skip
def test_a_name_that_is_nearly_right_is_told(folder: ImageFolder, there: str, named: str) -> None:
    (folder.root / there).write_bytes(b"x")
    with pytest.raises(DataError, match=f"'{named}' is missing, but '{there}' is there"):
        folder.open(named)
