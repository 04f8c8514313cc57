"""Each kind of picture looks as the list says, wherever it comes from."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from picture_cases import CASES, MAX_PIXELS, Case

from exgra_med.data.images import ImageFolder, decode_image, stored_image
from exgra_med.errors import DataError


def skip_without(case: Case) -> None:
    missing = [name for name in case.needs if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} of the extra [dicom] is not installed")


def as_rgb(shown: object) -> np.ndarray:
    pixels = np.asarray(shown, dtype=int)
    if pixels.ndim == 2 or pixels.shape[-1] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=-1)
    return pixels


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.what}")
def test_a_picture_is_read_right_or_refused(case: Case, tmp_path: Path) -> None:
    skip_without(case)
    name = case.make(tmp_path)
    folder = ImageFolder(tmp_path, MAX_PIXELS)
    if case.refused:
        with pytest.raises(DataError, match=case.refused) as caught:
            folder.open(name, "x/train/7")
        assert str(caught.value).startswith("x/train/7: the image ")
        assert "\n" not in str(caught.value) and "Invented" not in str(caught.value)
        return
    image = folder.open(name)
    assert image.mode == "RGB"
    pixels, expected = np.asarray(image).astype(int), as_rgb(case.shown)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= case.tolerance, pixels.tolist()

    # From bytes, and as it is stored, it looks the same.
    file = (tmp_path / name.split("#")[0]).read_bytes()
    assert (np.asarray(decode_image(io.BytesIO(file), MAX_PIXELS, name)) == pixels).all()
    stored, content = stored_image(io.BytesIO(file), MAX_PIXELS, name)
    assert (np.asarray(decode_image(io.BytesIO(content), MAX_PIXELS, stored)) == pixels).all()
    assert stored == folder.stored_name(name)
