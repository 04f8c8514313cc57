"""One picture, written in every container that users have, is read as the same pixels."""

import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from exgra_med.data.images import decode_image

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "data"))

from picture_cases import dicom_bytes, nifti_bytes, tiff

CODES = [
    "".join(side[way] for side, way in zip(axes, ways, strict=True))
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for ways in itertools.product((0, 1), repeat=3)
]
"""The 48 ways to store a volume."""

SHAPES = st.tuples(st.integers(2, 7), st.integers(2, 7))


@st.composite
def pictures(draw: st.DrawFn) -> np.ndarray:
    """A grey picture that has black and white, so that scaling it changes nothing."""
    pixels = draw(arrays(np.uint8, draw(SHAPES)))
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return pixels


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(content: bytes, name: str = "x") -> np.ndarray:
    return np.asarray(decode_image(io.BytesIO(content), 10_000, name)).astype(int)


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=-1).astype(int)


def difference(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found - expected).max())


@settings(max_examples=12, deadline=None)
@given(pictures(), st.integers(1, 8))
def test_common_pictures(tmp_path_factory, pixels: np.ndarray, orientation: int) -> None:
    image, same = Image.fromarray(pixels), grey(pixels)
    opaque = image.convert("RGBA")
    assert difference(read(encoded(image, "PNG")), same) == 0
    assert difference(read(encoded(opaque, "PNG")), same) == 0
    assert difference(read(encoded(image.convert("P"), "PNG")), same) == 0
    deep = Image.fromarray(pixels.astype(np.uint16) * 257)
    assert difference(read(encoded(deep, "PNG")), same) == 0

    # Blocks of one grey survive a JPEG of full quality but for rounding.
    blocks = np.kron(pixels, np.ones((8, 8), np.uint8))
    assert difference(read(encoded(Image.fromarray(blocks), "JPEG", quality=100)), grey(blocks)) < 3

    folder = tmp_path_factory.mktemp("tiff")
    for values in (pixels, pixels.astype(np.uint16) * 257):
        for photometric, stored in ((1, values), (0, np.iinfo(values.dtype).max - values)):
            name = tiff("x.tif", stored, photometric)(folder)
            assert difference(read((folder / name).read_bytes()), same) == 0

    exif = Image.Exif()
    exif[0x0112] = orientation
    # The camera's way round, undone in steps that are plain to see: mirror first, then turn.
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}[orientation]
    stored = np.rot90(pixels, turns)
    if orientation in (2, 4):
        stored = np.fliplr(stored)
    elif orientation in (5, 7):
        stored = np.flipud(stored)
    photo = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert difference(read(photo), same) == 0


@settings(max_examples=12, deadline=None)
@given(pictures(), arrays(np.uint8, (3, 4, 3)))
def test_dicom(pixels: np.ndarray, colours: np.ndarray) -> None:
    pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    same = grey(pixels)
    assert difference(read(dicom_bytes(pixels)), same) == 0
    negative = dicom_bytes(255 - pixels, PhotometricInterpretation="MONOCHROME1")
    assert difference(read(negative), same) == 0
    deep = dicom_bytes(pixels.astype(np.int16) * 16 - 1000)
    assert difference(read(deep), same) == 0
    windowed = dicom_bytes(
        pixels.astype(np.int16), RescaleSlope=1, RescaleIntercept=-100, WindowCenter=28,
        WindowWidth=256,
    )  # fmt: skip
    assert difference(read(windowed), same) == 0

    # A palette that turns the order of the greys around, and back.
    descriptor = [256, 0, 8]
    palette = dicom_bytes(
        255 - pixels,
        PhotometricInterpretation="PALETTE COLOR",
        **{f"{name}PaletteColorLookupTableDescriptor": descriptor for name in CHANNELS},
        **{
            f"{name}PaletteColorLookupTableData": np.arange(255, -1, -1).astype(np.uint8).tobytes()
            for name in CHANNELS
        },
    )
    assert difference(read(palette), same) == 0

    assert difference(read(dicom_bytes(colours)), colours.astype(int)) == 0
    ybr = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    stored = dicom_bytes(ybr, PhotometricInterpretation="YBR_FULL")
    # Rounding there and back, once each.
    assert difference(read(stored), colours.astype(int)) <= 3


CHANNELS = ("Red", "Green", "Blue")


@settings(max_examples=4, deadline=None)
@given(pictures())
def test_nifti_in_every_orientation(pixels: np.ndarray) -> None:
    pytest.importorskip("nibabel", reason="the extra [dicom] is not installed")
    assert len(set(CODES)) == 48
    volume = np.zeros((*pixels.shape[::-1], 2), np.uint8)
    # Rows run from the front to the back, columns from the patient's right to the left.
    volume[:, :, 1] = pixels.T[::-1, ::-1]
    for codes in CODES:
        found = read(nifti_bytes(volume, codes), "x#plane=axial,slice=1")
        assert difference(found, grey(pixels)) == 0, codes
