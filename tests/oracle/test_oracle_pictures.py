"""Every image that ships inside pydicom and nibabel, against what these two make of it themselves.

pydicom shows windows and tables in the units of the file, so its values are scaled to 8 bits here;
nibabel turns whole volumes. Both are skipped where the package is not installed.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest

from exgra_med.data.images import decode_image
from exgra_med.errors import DataError

MAX_PIXELS = 2_000_000
SUFFIXES_OF_NO_IMAGE = {".py", ".pyc", ".json", ".md", ".txt", ".icc", ".dump"}

NO_PICTURE = {
    "badVR.dcm": "an element that is no number: pydicom cannot read it either",
    "JPEG-lossy.dcm": "JPEG of 12 bits: only a decoder under the GPL reads it",
    "JPGExtended.dcm": "JPEG of 12 bits: only a decoder under the GPL reads it",
    "JPEG2000-embedded-sequence-delimiter.dcm": "no decoder makes a picture of it",
    "MR_truncated.dcm": "cut short: pydicom refuses it too",
    "meta_missing_tsyntax.dcm": "pixel data without rows and columns",
    "nested_priv_SQ.dcm": "pixel data without rows and columns",
    "no_meta.dcm": "does not begin with a DICOM element",
    "README": "a text",
    "zipMR.gz": "a packed DICOM file; unpack it",
}
"""Files that are refused, and why. Objects without pixel data are refused too."""

OTHERWISE = {
    "6293": "pixels are not square, and are made so",
    "6924": "pixels are not square, and are made so",
}
"""Files that look different from pydicom's own processing, and why."""


def pydicom_files() -> list[Path]:
    try:
        import pydicom
    except ImportError:
        return []
    folder = Path(pydicom.__file__).parent / "data"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if path.suffix not in SUFFIXES_OF_NO_IMAGE]


def to_eight_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255)


def by_pydicom(dataset, frame: int) -> np.ndarray:
    """The frame as 8-bit grey or RGB, by pydicom's own functions."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, pixel_array

    pixels = pixel_array(dataset, index=frame)
    bits = dataset.BitsStored
    if pixels.ndim == 3:
        return to_eight_bits(pixels, 0, 2**bits - 1)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(pixels, dataset) >> 8
    values = apply_modality_lut(pixels, dataset)
    if "WindowCenter" in dataset:
        # Far outside of any window stand its two ends, in the units that pydicom chooses.
        ends = apply_windowing(np.array([-1e9, 1e9]), dataset)
        shown = to_eight_bits(apply_windowing(values, dataset), *ends)
    elif bits <= 8:
        shown = to_eight_bits(values, 0, 2**bits - 1)
    else:
        known = values[pixels != dataset.get("PixelPaddingValue")]
        shown = to_eight_bits(values, known.min(), known.max())
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def test_every_image_inside_pydicom_is_shown_as_pydicom_shows_it() -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    for decoder in ("gdcm", "openjpeg", "pylibjpeg"):
        pytest.importorskip(decoder, reason="a decoder of the extra [dicom] is not installed")
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    shown, without_pixels, refused, otherwise = 0, 0, set(), set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in pydicom_files():
            content = path.read_bytes()
            try:
                dataset = pydicom.dcmread(io.BytesIO(content), force=True)
                frames = int(dataset.get("NumberOfFrames") or 1)
            except ValueError:
                refused.add(path.name)
                continue
            if dataset.get("BurnedInAnnotation") != "NO" and "Modality" in dataset:
                # What is refused for its modality is read where the file says that nothing is
                # burned in. Where the file itself cannot be written, its pixels are left alone.
                dataset.BurnedInAnnotation = "NO"
                changed = io.BytesIO()
                try:
                    dataset.save_as(changed)
                    content = changed.getvalue()
                except (TypeError, ValueError, AttributeError):
                    pass
            name = f"{path.name}#frame={frames // 2}" if frames > 1 else path.name
            try:
                picture = decode_image(io.BytesIO(content), MAX_PIXELS, name)
            except DataError as error:
                assert "\n" not in str(error)
                if "holds no pixels" in str(error):
                    without_pixels += 1
                else:
                    refused.add(path.name)
                continue
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit = dataset.original_encoding[0]
                syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                dataset.file_meta.TransferSyntaxUID = syntax
            expected = by_pydicom(dataset, frames // 2)
            if expected.ndim == 2:
                expected = np.repeat(expected[..., None], 3, axis=-1)
            found = np.asarray(picture).astype(int)
            # One level: rounding of the window's ends.
            if found.shape != expected.shape or np.abs(found - expected).max() > 1:
                otherwise.add(path.name)
            shown += 1
    assert otherwise == set(OTHERWISE)
    # This file's own list of types cannot be written by pydicom, so it still says "OT".
    assert refused == set(NO_PICTURE) | {"SC_rgb_jpeg.dcm"}
    assert shown > 80 and without_pixels > 80


NIBABEL_REFUSED = {
    "row_major.dconn.nii": "a matrix of connections, not a volume in a patient",
    "nifti1.hdr": "a header whose values lie in another file",
    "nifti2.hdr": "a header whose values lie in another file",
}


def test_every_nifti_inside_nibabel_is_shown_as_nibabel_turns_it() -> None:
    nibabel = pytest.importorskip("nibabel", reason="the extra [dicom] is not installed")
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    files = [*folder.glob("*.nii"), *folder.glob("*.nii.gz"), *folder.glob("nifti?.hdr")]
    if not files:
        pytest.skip("this nibabel came without its test files")
    refused = set()
    for path in sorted(files):
        try:
            decode_image(path, MAX_PIXELS, f"{path.name}#volume=0,plane=axial,slice=0")
        except DataError as error:
            assert "\n" not in str(error)
            refused.add(path.name)
            continue
        canonical = nibabel.as_closest_canonical(nibabel.load(path))
        data = canonical.get_fdata()
        data = data.reshape(*data.shape[:3], -1)[..., 0]
        sizes = nibabel.affines.voxel_sizes(canonical.affine)
        for axis, plane in enumerate(("sagittal", "coronal", "axial")):
            number = data.shape[axis] // 2
            name = f"{path.name}#volume=0,plane={plane},slice={number}"
            found = np.asarray(decode_image(path, MAX_PIXELS, name))[..., 0]
            values = np.flip(data.take(number, axis)).T
            # Some volumes hold NaN, which is shown black.
            known = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
            low, high = known.min(), max(known.max(), known.min() + 1e-9)
            expected = to_eight_bits(np.where(np.isfinite(values), values, low), low, high)
            width, height = np.delete(sizes, axis)
            if abs(width / height - 1) < 0.01:
                assert np.abs(found - expected).max() <= 1, name
            else:
                # Made square: as many pixels as millimetres of the smaller side.
                short = min(width, height)
                rows, columns = expected.shape
                assert found.shape == (round(rows * height / short), round(columns * width / short))
    assert refused == set(NIBABEL_REFUSED)
