import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_cases import by_gdcm, dicom_bytes

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


# Compression and size.


def compressed(pixels: np.ndarray, syntax: str) -> Any:
    pydicom = pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(pixels)))
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def test_one_frame_is_decoded_without_the_others(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = compressed(np.stack([RAMP, RAMP * 2, RAMP[::-1]]), "1.2.840.10008.1.2.5")
    dataset.save_as(folder.root / "cine.dcm")
    from pydicom.pixels.decoders import base

    decoded = []
    original = base.DecodeRunner._decode_frame

    def counted(runner: Any, content: Any, *rest: Any) -> Any:
        decoded.append(1)
        return original(runner, content, *rest)

    monkeypatch.setattr(base.DecodeRunner, "_decode_frame", counted)
    assert grey(folder, "cine.dcm#frame=2")[0] == grey(folder, "cine.dcm#frame=0")[2]
    assert len(decoded) == 2


@pytest.mark.parametrize(
    "syntax, named, package",
    [
        ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless Image Compression", "python-gdcm"),
        ("1.2.840.10008.1.2.4.70", r"JPEG Lossless, Non-Hierarchical, First-Order", "python-gdcm"),
        ("1.2.840.10008.1.2.4.90", "JPEG 2000 Image Compression", "python-gdcm"),
        (
            "1.2.840.10008.1.2.4.201",
            "High-Throughput JPEG 2000",
            "pylibjpeg pylibjpeg-openjpeg",
        ),
    ],
)
def test_a_missing_decoder_is_named_with_its_package(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch, syntax: str, named: str, package: str
) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    decoder = pydicom.pixels.get_decoder(syntax)
    monkeypatch.setattr(decoder, "_available", {})
    (folder.root / "a.dcm").write_bytes(dicom_bytes(RAMP, syntax=syntax))
    with pytest.raises(DataError, match=rf"{named}.*no decoder.*pip install {package}") as caught:
        folder.open("a.dcm")
    assert "Invented" not in str(caught.value)


def test_a_frame_that_ends_gdcm_is_refused_and_the_next_one_is_read(folder: ImageFolder) -> None:
    """A precision of 17 bits makes gdcm end its process; no `except` stops that."""
    for package in ("pydicom", "gdcm"):
        pytest.importorskip(package, reason="a decoder of the extra [dicom] is not installed")
    by_gdcm(folder.root, "JPEGLosslessProcess14_1")
    content = (folder.root / "scan.dcm").read_bytes()
    precision = content.index(b"\xff\xc3\0\x0b") + 4
    broken = content[:precision] + b"\x11" + content[precision + 1 :]
    (folder.root / "broken.dcm").write_bytes(broken)
    for _ in range(2):
        with pytest.raises(DataError, match=r"JPEG Lossless.*cannot be decoded: it is broken"):
            folder.open("broken.dcm")
        assert grey(folder, "scan.dcm")[2][3] == 255


def test_gdcm_is_sent_nothing_of_the_patient(folder: ImageFolder) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    from exgra_med.data.isolated_gdcm import single_frame

    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(RAMP, PatientID=SECRET)))
    sent = single_frame(dataset, b"frame ")
    assert SECRET.encode() not in sent and b"Invented" not in sent and b"frame " in sent


def test_compressed_pixels_of_another_size_are_refused_before_they_are_decoded(
    folder: ImageFolder,
) -> None:
    pytest.importorskip("openjpeg", reason="a decoder of the extra [dicom] is not installed")
    pytest.importorskip("pylibjpeg", reason="a decoder of the extra [dicom] is not installed")
    dataset = compressed(np.zeros((64, 64), np.int16), "1.2.840.10008.1.2.4.90")
    content = bytearray(dataset.PixelData)
    at = content.index(b"\xff\x4f\xff\x51") + 8
    for place in (at, at + 16):  # the picture and its one tile
        content[place : place + 8] = struct.pack(">II", 30_000, 30_000)
    dataset.PixelData = bytes(content)
    dataset.save_as(folder.root / "bomb.dcm")
    with pytest.raises(DataError, match="of another size than it says"):
        folder.open("bomb.dcm")

    # The same of JPEG, whose makers here write 1 x 1.
    larger = dicom_bytes(np.uint8([[1]]), syntax="1.2.840.10008.1.2.4.50")
    size = larger.index(b"\xff\xc1\0\x0b\x0c") + 5
    larger = larger[:size] + struct.pack(">HH", 60_000, 60_000) + larger[size + 4 :]
    (folder.root / "jpeg.dcm").write_bytes(larger)
    with pytest.raises(DataError, match="of another size than it says"):
        folder.open("jpeg.dcm")


def test_a_deflated_file_is_not_unpacked_beyond_all_measure(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    whole = dicom_bytes(RAMP)
    start = 144 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(whole[start:]) + packer.flush()
    head = whole[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    longer = len(head) - start
    head = head[:140] + (start - 144 + longer).to_bytes(4, "little") + head[144:]
    at = head.index(b"1.2.840.10008.1.2.1.99") - 2
    head = head[:at] + (22).to_bytes(2, "little") + head[at + 2 :]
    (folder.root / "a.dcm").write_bytes(head + packed)
    assert grey(folder, "a.dcm")[2][3] == 255
    monkeypatch.setattr("exgra_med.data.dicom.MAX_INFLATED_BYTES", 90)
    with pytest.raises(DataError, match="has, unpacked, more than 90 bytes"):
        folder.open("a.dcm")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of pydicom, while the file is made
@pytest.mark.parametrize("name", ["a.dcm", "a.dcm#frame=3", "a.dcm#window=lung", "a.dcm#frames=2"])
@pytest.mark.parametrize(
    "tags",
    [
        {"PhotometricInterpretation": SECRET},
        {"VOILUTFunction": "SECRET", "WindowCenter": 1, "WindowWidth": 9},
        {"RescaleSlope": 0},
        {"SOPClassUID": "1.2.3.4.5"},
        {"Rows": 77},
    ],
)
def test_no_refusal_quotes_a_tag(folder: ImageFolder, tags: dict[str, Any], name: str) -> None:
    pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    (folder.root / "a.dcm").write_bytes(dicom_bytes(RAMP, PatientID=SECRET, **tags))
    try:
        for each in folder.expand(name):
            folder.open(each)
    except DataError as error:
        assert "\n" not in str(error) and error.__cause__ is None
        for secret in (SECRET, "Invented", "SECRET", "1.2.3.4.5", "77"):
            assert secret not in str(error)
