from pathlib import Path

import numpy as np
import pytest

from exgra_med.data.derive import resized_size, write_resized
from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError

SAMPLE = open_prepared("bundled:vqa-rad-sample")


@pytest.mark.parametrize(
    "size, short, expected",
    [((100, 50), 20, (40, 20)), ((50, 101), 20, (20, 40)), ((7, 7), 14, (14, 14))],
)
def test_the_short_side_gets_the_length(size, short, expected) -> None:
    assert resized_size(size, short) == expected


def test_pixel_values_are_bit_equal_to_those_of_the_full_image(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    small = write_resized(SAMPLE, 56, tmp_path / "small")
    process = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    before, after = SAMPLE.image_folder(10**7), small.image_folder(10**7)
    for old, new in zip(SAMPLE.records("test"), small.records("test"), strict=True):
        assert new.id == old.id and new.image == f"{old.image}.png"
        images = [before.open(old.images[0]), after.open(new.images[0])]
        full, resized = process(images)["pixel_values"]
        assert np.array_equal(full, resized)
    assert small.manifest["made_from"]["fingerprint"] == SAMPLE.fingerprint


def test_a_side_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too short"):
        write_resized(SAMPLE, 0, tmp_path / "out")
