"""One slice of a NIfTI volume -> pixels (extra `dicom`): `name.nii.gz#axis=2,slice=40`."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exgra_med.data.intensity import picked, scale_to_eight_bits
from exgra_med.errors import DataError, import_extra


def read_nifti(path: Path, max_pixels: int, name: str, where: str = "") -> Image.Image:
    """Read a slice as 8-bit RGB, scaled from its least to its greatest value.

    Head volumes can show a face; the reader neither detects nor removes it.

    Args:
        path: the file.
        max_pixels: pixels of the slice above which it is refused.
        name: of the image, with `#axis=A,slice=S`.
        where: record id, for the error message.

    Raises:
        MissingExtraError: nibabel is not installed.
        DataError: no slice is picked, there is no such slice, too large, or broken.
    """
    nibabel = import_extra("nibabel", "Reading NIfTI files", "dicom")
    prefix = f"{where}: the image {name!r}" if where else f"the image {name!r}"
    try:
        volume: Any = nibabel.load(path)
        shape = volume.shape
        choice = picked(name)
        if len(shape) != 3 or set(choice) != {"axis", "slice"}:
            raise DataError(
                f"{prefix} is a volume of shape {shape}.",
                "Pick a slice of a 3-D volume, for example #axis=2,slice=40 behind the name.",
            )
        axis, number = choice["axis"], choice["slice"]
        if not (0 <= axis < 3 and 0 <= number < shape[axis]):
            raise DataError(f"{prefix}: there is no such slice in shape {shape}.")
        if np.prod([size for side, size in enumerate(shape) if side != axis]) > max_pixels:
            raise DataError(f"{prefix} has more than {max_pixels} pixels.")
        index: list[int | slice] = [slice(None)] * 3
        index[axis] = number
        values = np.asarray(volume.dataobj[tuple(index)])
    except DataError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise DataError(f"{prefix} is a NIfTI file that cannot be decoded ({kind}).") from None
    # Rows run upwards in NIfTI's voxel order.
    return scale_to_eight_bits(np.rot90(values))
