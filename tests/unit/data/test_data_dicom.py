import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exgra_med.data.images import ImageFolder, rendered_name
from exgra_med.data.prepare import prepare
from exgra_med.errors import DataError, MissingExtraError

SECRET = "Mustermann^Erika"


def save_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset

    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.PatientID, dataset.Modality = SECRET, SECRET, "CT"
    dataset.add_new((0x0011, 0x0010), "LO", SECRET)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    if pixels.ndim == 3:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.PixelData = pixels.astype("<i2").tobytes()
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.save_as(path, enforce_file_format=True)


RAMP = np.arange(12, dtype=np.int16).reshape(3, 4) * 100


def grey(folder: ImageFolder, name: str) -> list[list[int]]:
    image = folder.open(name)
    assert image.mode == "RGB"
    return np.asarray(image)[..., 0].tolist()


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    (tmp_path / "images").mkdir()
    return ImageFolder(tmp_path / "images", 10_000)


def test_without_a_window_the_whole_range_is_shown(folder: ImageFolder) -> None:
    save_dicom(folder.root / "a.dcm", RAMP)
    values = grey(folder, "a.dcm")
    assert values[0][0] == 0 and values[2][3] == 255 and values[1][1] == round(255 * 500 / 1100)


def test_rescale_and_window(folder: ImageFolder) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0.5, "WindowWidth": 1001}
    save_dicom(folder.root / "a.dcm", RAMP, **tags)
    # Values are 200 n - 1000; the window runs from -500 to 500.
    values = np.array(grey(folder, "a.dcm")).ravel()
    assert values.tolist() == [0, 0, 0, 26, 76, 128, 178, 230, 255, 255, 255, 255]


def test_monochrome1_is_inverted(folder: ImageFolder) -> None:
    save_dicom(folder.root / "a.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")
    assert grey(folder, "a.dcm")[0][0] == 255 and grey(folder, "a.dcm")[2][3] == 0


def test_a_frame_must_be_picked(folder: ImageFolder) -> None:
    save_dicom(folder.root / "a.dcm", np.stack([RAMP, RAMP[::-1]]))
    with pytest.raises(DataError, match="has 2 frames"):
        folder.open("a.dcm")
    with pytest.raises(DataError, match="no frame 2"):
        folder.open("a.dcm#frame=2")
    assert grey(folder, "a.dcm#frame=1") == grey(folder, "a.dcm#frame=0")[::-1]


@pytest.mark.parametrize(
    "tags", [{"BurnedInAnnotation": "YES"}, {"Modality": "US"}, {"Modality": "SC"}]
)
def test_burned_in_text_is_refused(folder: ImageFolder, tags: dict[str, str]) -> None:
    save_dicom(folder.root / "a.dcm", RAMP, **tags)
    with pytest.raises(DataError, match="burned into"):
        folder.open("a.dcm")
    save_dicom(folder.root / "b.dcm", RAMP, **{**tags, "BurnedInAnnotation": "NO"})
    assert folder.open("b.dcm").size == (4, 3)


def test_no_tag_reaches_an_error_a_log_or_the_prepared_folder(
    rad: Path, tmp_path: Path, change_rad, caplog: pytest.LogCaptureFixture, recwarn
) -> None:
    caplog.set_level(logging.DEBUG)
    save_dicom(rad / "images/scan.dcm", RAMP)
    change_rad(0, image_name="scan.dcm")
    prepared = prepare("vqa-rad", rad, tmp_path / "out")
    names = [
        name for split in prepared.splits for r in prepared.records(split) for name in r.images
    ]
    assert "scan.dcm.png" in names
    every = b"".join(path.read_bytes() for path in prepared.path.rglob("*") if path.is_file())
    assert SECRET.encode() not in every
    assert prepared.image_folder(10_000).open("scan.dcm.png").size == (4, 3)

    broken = (rad / "images/scan.dcm").read_bytes()[:-10]
    (rad / "images/scan.dcm").write_bytes(broken)
    folder = ImageFolder(rad / "images", 10_000)
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        folder.open("scan.dcm")
    assert SECRET not in str(caught.value) and caught.value.__cause__ is None
    assert SECRET not in caplog.text
    assert not [w for w in recwarn if SECRET in str(w.message)]


def test_the_pixel_cap_holds(folder: ImageFolder) -> None:
    save_dicom(folder.root / "a.dcm", np.zeros((101, 100), dtype=np.int16))
    with pytest.raises(DataError, match="more than 10000 pixels"):
        folder.open("a.dcm")


def test_names_of_rendered_images_in_a_prepared_folder() -> None:
    assert rendered_name("a/b.dcm#frame=3") == "a/b.dcm-frame-3.png"
    assert rendered_name("a/b.nii.gz#plane=axial,slice=3") == "a/b.nii.gz-plane-axial-slice-3.png"


def test_without_the_extra_the_error_says_what_to_install(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    (folder.root / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (folder.root / "a.nii").write_bytes(b"\0" * 344 + b"n+1\0")
    for name in ("a.dcm", "a.nii"):
        with pytest.raises(MissingExtraError, match=r"exgra-med\[dicom\]"):
            folder.open(name)
