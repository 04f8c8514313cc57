"""Pictures as users have them, each with what it must look like: the tests read this list, and the
page docs/reference/images.md is made from it.

Every file is made here; all numbers in it are invented.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAX_PIXELS = 100_000
RAMP = np.arange(12, dtype=np.int16).reshape(3, 4) * 100
STRETCHED = np.round(np.arange(12).reshape(3, 4) / 11 * 255)
"""`RAMP` from its least to its greatest value."""
RED, GREEN, BLUE, WHITE, BLACK = (
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [255, 255, 255],
    [0, 0, 0],
)


@dataclass(frozen=True)
class Case:
    """One kind of file.

    Args:
        group: heading on the page.
        what: the file, in a few words.
        how: how it is read, or why it is refused, in a few words.
        make: writes it into a folder and returns the image's name.
        shown: (height, width) of grey or (height, width, 3) that it must look like.
        refused: what the error must say instead.
        tolerance: greatest difference, where the file itself loses something.
        needs: modules that it cannot be made or read without.
        row: what the page says instead of `what`, once for all cases that say the same.
    """

    group: str
    what: str
    how: str
    make: Callable[[Path], str]
    shown: Any = None
    refused: str = ""
    tolerance: int = 0
    needs: tuple[str, ...] = ()
    row: str = ""


# Makers of files.


def dicom_bytes(pixels: np.ndarray, syntax: str = "", encode: bool = True, **tags: Any) -> bytes:
    """A CT of one frame, or of as many as `pixels` has, with the given elements changed."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax or pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = tags.pop("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.Modality = "Invented^Name", "CT"
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim == (4 if colour else 3):
        dataset.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if encode:
        raw = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        if syntax:
            # The header of a JPEG of 12 bits, and behind it what no decoder makes a picture of.
            size = struct.pack(">HH", dataset.Rows, dataset.Columns)
            raw = b"\xff\xd8\xff\xc1\0\x0b\x0c" + size + b"\1\1\x11\0" + raw
        dataset.PixelData = pydicom.encaps.encapsulate([raw]) if syntax else raw
    for key, value in tags.items():
        if value is None:
            del dataset[key]
        else:
            setattr(dataset, key, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def items(**tags: Any) -> Any:
    """A sequence of one item."""
    from pydicom import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    for key, value in tags.items():
        setattr(item, key, value)
    return Sequence([item])


def table(first: int, bits: int, entries: Any) -> Any:
    """A lookup table, as a sequence of one item."""
    data = np.asarray(entries)
    # In 8 bits two entries fill a word.
    raw = data.astype("<u2" if bits > 8 or data.max() > 255 else "u1").tobytes()
    sequence = items(LUTDescriptor=[len(data), first & 0xFFFF, bits])
    sequence[0].add_new("LUTData", "OW", raw + b"\0" * (len(raw) % 2))
    return sequence


def dicom(name: str = "scan.dcm", pixels: np.ndarray = RAMP, **tags: Any) -> Callable[[Path], str]:
    """Write a DICOM file; the name may select something in it. Tags may be functions of nothing."""

    def make(folder: Path) -> str:
        made = {key: value() if callable(value) else value for key, value in tags.items()}
        (folder / name.split("#")[0]).write_bytes(dicom_bytes(pixels, **made))
        return name

    return make


def compressed(syntax: str, pixels: np.ndarray, name: str = "scan.dcm") -> Callable[[Path], str]:
    """Write a DICOM file that pydicom compresses."""

    def make(folder: Path) -> str:
        import pydicom

        dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(pixels)))
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / name.split("#")[0])
        return name

    return make


def picture(name: str, image: Callable[[], Image.Image], **options: Any) -> Callable[[Path], str]:
    """Write a picture with Pillow, in the format of the name's ending."""

    def make(folder: Path) -> str:
        image().save(folder / name.split("#")[0], **options)
        return name

    return make


def content(name: str, data: bytes) -> Callable[[Path], str]:
    """Write bytes."""

    def make(folder: Path) -> str:
        (folder / name.split("#")[0]).write_bytes(data)
        return name

    return make


def upright() -> Image.Image:
    """A picture of 2 x 3 pixels whose corners all differ."""
    return Image.fromarray(UPRIGHT.astype(np.uint8))


UPRIGHT = np.array([[10, 60], [110, 160], [210, 255]])
_TURNED = {
    1: UPRIGHT,
    2: np.fliplr(UPRIGHT),
    3: np.rot90(UPRIGHT, 2),
    4: np.flipud(UPRIGHT),
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),
    7: np.rot90(UPRIGHT, 2).T,
    8: np.rot90(UPRIGHT, -1),
}
"""How a camera stores `UPRIGHT` with each EXIF orientation."""


def turned(ending: str, orientation: int) -> Callable[[Path], str]:
    """Write `UPRIGHT` as a camera does that was held so."""

    def make(folder: Path) -> str:
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(_TURNED[orientation].astype(np.uint8))
        # Each pixel 8 x 8, so that a JPEG keeps it.
        stored = stored.resize((stored.width * 8, stored.height * 8), Image.Resampling.NEAREST)
        options = {"quality": 100} if ending == "jpg" else {"lossless": True}
        stored.convert("RGB").save(folder / f"photo.{ending}", exif=exif, **options)
        return f"photo.{ending}"

    return make


def tiff(
    name: str, values: np.ndarray, photometric: int = 1, bits: int = 0, sample_format: int = 1
) -> Callable[[Path], str]:
    """Write an uncompressed TIFF of one strip by hand, as Pillow writes too few kinds.

    Args:
        photometric: 0 white is zero, 1 black is zero.
        bits: a sample; those of the values where absent.
        sample_format: 1 unsigned, 2 signed, 3 float.
    """
    height, width = values.shape
    data = np.packbits(values.astype(bool), axis=1) if bits == 1 else values
    raw = data.tobytes()
    tags = [
        (256, width),
        (257, height),
        (258, bits or values.dtype.itemsize * 8),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(raw)),
        (339, sample_format),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags
    )
    raw += b"\0" * (len(raw) % 2)
    return content(name, b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + directory + b"\0" * 4)


def pages(name: str, number: int) -> Callable[[Path], str]:
    """Write a picture of several pages; page n has the grey 40 n."""

    def make(folder: Path) -> str:
        each = [Image.new("L", (3, 2), 40 * n).convert("RGB") for n in range(number)]
        path = folder / name.split("#")[0]
        extra = {"lossless": True} if path.suffix == ".webp" else {}
        each[0].save(path, save_all=True, append_images=each[1:], **extra)
        return name

    return make


def with_alpha(mode: str) -> Callable[[], Image.Image]:
    """A black, a half-transparent black and a transparent pixel."""

    def make() -> Image.Image:
        alpha = np.array([[255, 128, 0]], dtype=np.uint8)
        grey = np.zeros_like(alpha)
        channels = [grey, alpha] if mode == "LA" else [grey, grey, grey, alpha]
        return Image.fromarray(np.stack(channels, axis=-1), mode)

    return make


def palette_image() -> Image.Image:
    """Red and blue by a palette."""
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return image


HEAD = np.zeros((4, 5, 6), dtype=np.int16)
"""A volume in the canonical orientation: one bright voxel at the right, front and head."""
HEAD[3, 4, 5] = 100
HEAD[0, 0, 0] = 40


def axial(volume: np.ndarray = HEAD, number: int = 5) -> np.ndarray:
    """An axial slice as it must look: the patient's right on the left, the front up."""
    plane = volume[:, :, number].astype(float)
    low, high = plane.min(), plane.max()
    return np.round(np.flip(plane).T / max(high - low, 1) * 255)


def nifti_bytes(
    volume: np.ndarray = HEAD,
    codes: str = "RAS",
    voxels: tuple[float, float, float] = (1, 1, 1),
    affine: np.ndarray | None = None,
    known: bool = True,
    version: int = 1,
) -> bytes:
    """A NIfTI file of a canonical volume, stored with axes of the given codes."""
    import nibabel
    from nibabel.orientations import axcodes2ornt, ornt_transform

    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(volume, np.diag([*voxels, 1.0]) if affine is None else affine)
    wanted = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    image = image.as_reoriented(wanted) if affine is None else image
    if not known:
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
    return image.to_bytes()


def nifti(name: str, **settings: Any) -> Callable[[Path], str]:
    """Write `nifti_bytes`, packed where the name says so."""

    def make(folder: Path) -> str:
        import gzip

        made = {key: value() if callable(value) else value for key, value in settings.items()}
        raw = nifti_bytes(**made)
        path = folder / name.split("#")[0]
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
        return name

    return make


# The list. Expected values follow from the standards and are written out here, not computed by the
# code under test.

_SIXTEEN = np.array([[1000, 1500], [2000, 3000]], dtype=np.uint16)
_SIXTEEN_SHOWN = [[0, 64], [128, 255]]
_PALETTE = {
    "RedPaletteColorLookupTableDescriptor": [3, 0, 16],
    "GreenPaletteColorLookupTableDescriptor": [3, 0, 16],
    "BluePaletteColorLookupTableDescriptor": [3, 0, 16],
    "PhotometricInterpretation": "PALETTE COLOR",
    "Modality": "US",
    "BurnedInAnnotation": "NO",
}
_INDICES = np.array([[0, 1, 2, 9]], dtype=np.uint8)


def _words(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


_CHANNELS = {
    "RedPaletteColorLookupTableData": _words(0xFFFF, 0, 0),
    "GreenPaletteColorLookupTableData": _words(0, 0xFFFF, 0),
    "BluePaletteColorLookupTableData": _words(0, 0, 0xFF00),
}
_CT = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}
_HU = np.array([[-2000, -1350, -1024, -600, -100, 0, 40, 80, 150, 400, 1024, 3000]])
_STORED_HU = (_HU + 1024).astype(np.int16)
_YBR_RED = np.tile(np.array([76, 85, 255], dtype=np.uint8), (2, 2, 1))
_PADDED = np.array([[-2000, 0, 100, 200]], dtype=np.int16)


def _enhanced(**tags: Any) -> Callable[[Path], str]:
    """Two frames with their own rescale and window, and what both share."""

    def per_frame() -> Any:
        from pydicom.sequence import Sequence

        return Sequence(
            [
                items(FrameVOILUTSequence=items(WindowCenter=w / 2 + 0.5, WindowWidth=w + 1))[0]
                for w in (1100, 550)
            ]
        )

    def shared() -> Any:
        return items(
            PixelValueTransformationSequence=items(
                RescaleSlope=1, RescaleIntercept=0, RescaleType="HU"
            ),
            PixelMeasuresSequence=items(PixelSpacing=[1, 1]),
        )

    return dicom(
        "scan.dcm#frame=1",
        np.stack([RAMP, RAMP]),
        PerFrameFunctionalGroupsSequence=per_frame,
        SharedFunctionalGroupsSequence=shared,
        **tags,
    )


def _ramp_through(white: float) -> np.ndarray:
    return np.round(np.clip(RAMP / white, 0, 1) * 255)


PYDICOM = ("pydicom",)
NIBABEL = ("nibabel",)
COMMON, DICOM, NIFTI, CT, NAMES = (
    "Common pictures",
    "DICOM",
    "NIfTI",
    "Windows of a CT",
    "What is refused by name",
)

CASES = [
    *(
        Case(
            COMMON,
            f"{ending.upper()} with EXIF orientation {orientation}",
            "turned upright",
            turned(ending, orientation),
            np.kron(UPRIGHT, np.ones((8, 8))),
            tolerance=3 if ending == "jpg" else 0,
            row="JPEG, PNG, TIFF and WebP with EXIF orientation 1 to 8",
        )
        for ending in ("jpg", "png", "tif", "webp")
        for orientation in range(1, 9)
    ),
    Case(
        COMMON,
        "JPEG whose orientation stands in XMP alone",
        "turned upright",
        picture(
            "a.jpg",
            lambda: Image.fromarray(np.kron(_TURNED[6], np.ones((8, 8))).astype(np.uint8)),
            quality=100,
            xmp=b'<rdf:Description tiff:Orientation="6"/>',
        ),
        np.kron(UPRIGHT, np.ones((8, 8))),
        tolerance=3,
    ),
    Case(
        COMMON,
        "EXIF that is broken, or whose orientation is none of 1 to 8",
        "as stored",
        picture(
            "a.png",
            upright,
            exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
        ),
        UPRIGHT,
    ),
    Case(
        COMMON,
        "JPEG of a telephone with previews inside (MPO)",
        "the first picture, which is the photograph",
        picture(
            "a.jpg",
            lambda: Image.new("RGB", (8, 8), (90, 90, 90)),
            format="MPO",
            save_all=True,
            append_images=[Image.new("RGB", (4, 4))],
        ),
        np.full((8, 8), 90),
        tolerance=2,
    ),
    Case(
        COMMON,
        "PNG of grey and alpha",
        "composed on white",
        picture("a.png", with_alpha("LA")),
        [[0, 127, 255]],
    ),
    Case(
        COMMON,
        "PNG of RGB and alpha",
        "composed on white",
        picture("a.png", with_alpha("RGBA")),
        [[0, 127, 255]],
    ),
    Case(
        COMMON,
        "WebP of RGB and alpha",
        "composed on white",
        picture("a.webp", with_alpha("RGBA"), lossless=True, exact=True),
        [[0, 127, 255]],
    ),
    Case(
        COMMON,
        "TIFF of RGB and alpha",
        "composed on white",
        picture("a.tif", with_alpha("RGBA")),
        [[0, 127, 255]],
    ),
    Case(
        COMMON,
        "PNG with a palette whose entries are transparent in part",
        "composed on white",
        picture("a.png", palette_image, transparency=b"\xff\x00"),
        [[RED, WHITE]],
    ),
    Case(
        COMMON,
        "PNG with a palette of which one entry is transparent",
        "composed on white",
        picture("a.png", palette_image, transparency=0),
        [[WHITE, BLUE]],
    ),
    Case(
        COMMON,
        "PNG of RGB with one transparent colour",
        "composed on white",
        picture("a.png", lambda: palette_image().convert("RGB"), transparency=(255, 0, 0)),
        [[WHITE, BLUE]],
    ),
    Case(
        COMMON,
        "PNG of grey with one transparent value",
        "composed on white",
        picture("a.png", lambda: Image.fromarray(np.uint8([[0, 9]])), transparency=0),
        [[255, 9]],
    ),
    Case(
        COMMON,
        "PNG of 16 bits with one transparent value",
        "that value white, the others from the least to the greatest",
        picture("a.png", lambda: Image.fromarray(_SIXTEEN), transparency=1000),
        [[255, 0], [85, 255]],
    ),
    Case(
        COMMON,
        "PNG of 16 bits",
        "from the least to the greatest value",
        picture("a.png", lambda: Image.fromarray(_SIXTEEN)),
        _SIXTEEN_SHOWN,
    ),
    Case(
        COMMON,
        "PNG of 1 bit",
        "black and white",
        picture("a.png", lambda: Image.fromarray(np.uint8([[0, 255]])).convert("1")),
        [[0, 255]],
    ),
    Case(
        COMMON,
        "TIFF of 16 bits, BlackIsZero",
        "from the least to the greatest value",
        tiff("a.tif", _SIXTEEN),
        _SIXTEEN_SHOWN,
    ),
    Case(
        COMMON,
        "TIFF of 16 bits, WhiteIsZero",
        "the negative of its values",
        tiff("a.tif", _SIXTEEN, photometric=0),
        [[255, 191], [127, 0]],
    ),
    Case(
        COMMON,
        "TIFF of 16 bits, WhiteIsZero, compressed (LZW)",
        "the negative of its values",
        picture(
            "a.tif", lambda: Image.fromarray(_SIXTEEN), compression="tiff_lzw", tiffinfo={262: 0}
        ),
        [[255, 191], [127, 0]],
    ),
    Case(
        COMMON,
        "TIFF of 8 bits, WhiteIsZero",
        "the negative of its values",
        tiff("a.tif", np.uint8([[0, 200]]), photometric=0),
        [[255, 55]],
    ),
    Case(
        COMMON,
        "TIFF of 1 bit, WhiteIsZero",
        "the negative of its values",
        tiff("a.tif", np.uint8([[0, 1]]), photometric=0, bits=1),
        [[255, 0]],
    ),
    Case(
        COMMON,
        "TIFF of 1 bit, BlackIsZero",
        "black and white",
        tiff("a.tif", np.uint8([[0, 1]]), photometric=1, bits=1),
        [[0, 255]],
    ),
    Case(
        COMMON,
        "TIFF of 32-bit floats, WhiteIsZero",
        "the negative of its values",
        tiff("a.tif", np.float32([[0, 0.5, 1]]), photometric=0, sample_format=3),
        [[255, 127, 0]],
    ),
    Case(
        COMMON,
        "TIFF of 32-bit floats, with NaN and infinity",
        "from the least to the greatest finite value; NaN black, infinity white",
        tiff("a.tif", np.float32([[-1, np.nan, 0, 1, np.inf]]), sample_format=3),
        [[0, 0, 128, 255, 255]],
    ),
    Case(
        COMMON,
        "TIFF of signed 16 bits",
        "from the least to the greatest value",
        tiff("a.tif", np.int16([[-1000, 0, 1000]]), sample_format=2),
        [[0, 128, 255]],
    ),
    Case(
        COMMON,
        "TIFF of several pages",
        "the page that `#frame=N` selects",
        pages("a.tif#frame=2", 3),
        np.full((2, 3), 80),
    ),
    Case(
        COMMON,
        "TIFF of several pages, none selected",
        "refused; says how many there are",
        pages("a.tif", 3),
        refused="has 3 pages or pictures.* Select one.*#frame=",
    ),
    Case(
        COMMON,
        "TIFF of several pages, a page that is not there",
        "refused",
        pages("a.tif#frame=3", 3),
        refused="there is no frame 3, there are 3",
    ),
    Case(
        COMMON,
        "Animated PNG",
        "the picture that `#frame=N` selects",
        pages("a.png#frame=1", 2),
        np.full((2, 3), 40),
    ),
    Case(
        COMMON,
        "Animated PNG, no picture selected",
        "refused; says how many there are",
        pages("a.png", 2),
        refused="has 2 pages or pictures",
    ),
    Case(
        COMMON,
        "Animated WebP, no picture selected",
        "refused; says how many there are",
        pages("a.webp", 2),
        refused="has 2 pages or pictures",
    ),
    Case(
        COMMON,
        "JPEG of CMYK, as Adobe writes it inverted",
        "converted to RGB",
        picture("a.jpg", lambda: Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100),
        np.tile(np.array(RED), (8, 8, 1)),
        tolerance=4,
    ),
    Case(
        COMMON,
        "TIFF of CIE L\\*a\\*b\\*",
        "converted to RGB",
        picture("a.tif", lambda: Image.new("LAB", (1, 1), (255, 128, 128))),
        [[WHITE]],
        tolerance=2,
    ),
    Case(
        COMMON,
        "PNG or JPEG with a colour profile (ICC)",
        "as stored: the profile is not applied",
        picture("a.png", lambda: Image.new("RGB", (1, 1), (9, 99, 199)), icc_profile=b"x" * 200),
        [[[9, 99, 199]]],
    ),
    Case(
        COMMON,
        "PNG whose name ends in `.jpg`",
        "by its content",
        picture("a.jpg", lambda: Image.new("L", (2, 1), 7), format="PNG"),
        [[7, 7]],
    ),
    Case(
        COMMON,
        "PNG whose name ends in `.dcm`",
        "by its content",
        picture("a.dcm", lambda: Image.new("L", (2, 1), 7), format="PNG"),
        [[7, 7]],
    ),
    Case(
        COMMON,
        "PNG without an ending",
        "by its content",
        picture("IM0001", lambda: Image.new("L", (2, 1), 7), format="PNG"),
        [[7, 7]],
    ),
    # DICOM: what the values mean.
    Case(
        DICOM,
        "No window, more than 8 bits",
        "from the frame's least to its greatest value",
        dicom(),
        STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "No window, 8 bits or fewer, no other unit",
        "as stored",
        dicom(pixels=np.uint8([[10, 100, 200]])),
        [[10, 100, 200]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window LINEAR (or of no function) and rescale",
        "PS3.3 C.11.2.1.2.1; the first window of several",
        dicom(
            RescaleSlope=2,
            RescaleIntercept=-1000,
            WindowCenter=[0.5, 9],
            WindowWidth=[1001, 9],
        ),
        np.reshape([0, 0, 0, 26, 76, 128, 178, 230, 255, 255, 255, 255], (3, 4)),
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window LINEAR_EXACT",
        "PS3.3 C.11.2.1.3.2",
        dicom(WindowCenter=500, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT"),
        _ramp_through(1000),
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window SIGMOID",
        "PS3.3 C.11.2.1.3.1",
        dicom(
            pixels=np.int16([[1548, 2048, 2548]]),
            WindowCenter=2048,
            WindowWidth=1000,
            VOILUTFunction="SIGMOID",
        ),
        [[30, 128, 225]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window SIGMOID behind a rescale",
        "in the rescaled unit",
        dicom(
            pixels=np.int16([[262, 512, 762]]),
            RescaleSlope=2,
            RescaleIntercept=-1024,
            WindowCenter=0,
            WindowWidth=1000,
            VOILUTFunction="SIGMOID",
        ),
        [[30, 128, 225]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window SIGMOID of MONOCHROME1",
        "inverted",
        dicom(
            pixels=np.int16([[1548, 2048, 2548]]),
            PhotometricInterpretation="MONOCHROME1",
            WindowCenter=2048,
            WindowWidth=1000,
            VOILUTFunction="SIGMOID",
        ),
        [[225, 128, 30]],
        tolerance=1,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window SIGMOID in the shared functional groups",
        "as the window of the file",
        dicom(
            pixels=np.int16([[1548, 2048, 2548]]),
            SharedFunctionalGroupsSequence=lambda: items(
                FrameVOILUTSequence=items(
                    WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID"
                )
            ),
        ),
        [[30, 128, 225]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Window of width 0",
        "counts as none",
        dicom(WindowCenter=0, WindowWidth=0),
        STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "VOI LUT Sequence of 16 bits",
        "the table, white at the bits that its greatest entry needs",
        dicom(
            pixels=np.int16([[0, 10, 11, 12, 99]]),
            VOILUTSequence=lambda: table(10, 16, [0, 1000, 4095]),
        ),
        [[0, 0, 62, 255, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "VOI LUT Sequence of 8 bits with more than 256 entries, beside a window",
        "the table goes before the window",
        dicom(
            pixels=np.uint16([[0, 1000, 4095]]),
            VOILUTSequence=lambda: table(0, 8, 255 - np.arange(4096) // 16),
            WindowCenter=1,
            WindowWidth=2,
        ),
        [[255, 193, 0]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "VOI LUT Sequence of Hounsfield units, from a negative value",
        "the table, after rescale",
        dicom(
            pixels=np.uint16([[0, 924, 1024]]),
            **_CT,
            VOILUTSequence=lambda: table(-101, 8, [0, 64, 255]),
        ),
        [[0, 64, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Modality LUT Sequence",
        "the table, then the window",
        dicom(
            pixels=np.uint8([[0, 1, 2, 255]]),
            ModalityLUTSequence=lambda: table(0, 16, [0, 300, 600]),
            WindowCenter=300.5,
            WindowWidth=601,
        ),
        [[0, 128, 255, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "MONOCHROME1",
        "the lowest value white",
        dicom(PhotometricInterpretation="MONOCHROME1"),
        255 - STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "MONOCHROME1 with Presentation LUT Shape INVERSE",
        "inverted once",
        dicom(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
        255 - STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "MONOCHROME2 with Presentation LUT Shape INVERSE",
        "inverted",
        dicom(PresentationLUTShape="INVERSE"),
        255 - STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "MONOCHROME2 with Presentation LUT Shape IDENTITY",
        "as it is",
        dicom(PresentationLUTShape="IDENTITY"),
        STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Presentation LUT Shape INVERSE behind a window",
        "inverted after the window",
        dicom(
            WindowCenter=500,
            WindowWidth=1000,
            VOILUTFunction="LINEAR_EXACT",
            PresentationLUTShape="INVERSE",
        ),
        255 - np.asarray(_ramp_through(1000)),
        tolerance=1,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Presentation LUT Shape INVERSE with padding",
        "inverted, padding black",
        dicom(pixels=_PADDED, PixelPaddingValue=-2000, PresentationLUTShape="INVERSE"),
        [[0, 255, 127, 0]],
        tolerance=1,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Pixel Padding Value",
        "black, and no part of the scale",
        dicom(pixels=_PADDED, PixelPaddingValue=-2000),
        [[0, 0, 128, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Pixel Padding Range Limit",
        "black, and no part of the scale",
        dicom(pixels=_PADDED, PixelPaddingValue=-2000, PixelPaddingRangeLimit=0),
        [[0, 0, 0, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Pixel Padding Value that every pixel has",
        "passed over: the element is wrong",
        dicom(pixels=np.uint8([[7, 7]]), PixelPaddingValue=7),
        [[7, 7]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Padding in MONOCHROME1",
        "black too",
        dicom(
            pixels=np.uint16([[0, 100, 200, 4095]]),
            PixelPaddingValue=4095,
            PhotometricInterpretation="MONOCHROME1",
        ),
        [[255, 127, 0, 0]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Negative rescale slope",
        "the lowest value of the unit black",
        dicom(RescaleSlope=-1, RescaleIntercept=0),
        255 - STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Explicit VR Big Endian, with a VOI LUT Sequence",
        "in the byte order of the file",
        lambda folder: _big_endian(folder),
        [[0, 62, 255, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Enhanced multi-frame: rescale and window in functional groups",
        "those of the frame, else the shared ones",
        _enhanced(),
        _ramp_through(550),
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Enhanced multi-frame: all of it shared",
        "as for one frame",
        dicom(
            "scan.dcm#frame=0",
            np.stack([_STORED_HU, _STORED_HU]),
            SharedFunctionalGroupsSequence=lambda: items(
                PixelValueTransformationSequence=items(RescaleSlope=1, RescaleIntercept=-1024),
                FrameVOILUTSequence=items(
                    WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT"
                ),
            ),
        ),
        np.round(np.clip((_HU + 160) / 400, 0, 1) * 255),
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Enhanced multi-frame: pixels of a frame that are not square",
        "the longer side filled in bilinearly",
        dicom(
            pixels=np.uint8([[10, 10], [90, 90]]),
            SharedFunctionalGroupsSequence=lambda: items(
                PixelMeasuresSequence=items(PixelSpacing=[2, 1])
            ),
        ),
        [[10, 10], [30, 30], [70, 70], [90, 90]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Bits above Bits Stored (overlays)",
        "left out",
        dicom(pixels=np.uint16([[0x1000, 0x2FFF, 0x0800]]), BitsStored=12, HighBit=11),
        [[0, 255, 128]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Signed values of 12 bits in 16",
        "the sign is that of the bits stored",
        dicom(pixels=np.int16([[0x0FFF, 0, 1]]), BitsStored=12, HighBit=11),
        [[0, 128, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Bits above 10 Bits Stored",
        "left out",
        dicom(pixels=np.uint16([[0x0400, 0x03FF, 0x8200]]), BitsStored=10, HighBit=9),
        [[0, 255, 128]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "A bit above 7 Bits Stored in 8",
        "left out",
        dicom(pixels=np.uint8([[0x80, 0x7F, 0xC0]]), BitsStored=7, HighBit=6),
        [[0, 255, 128]],
        tolerance=1,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Float Pixel Data",
        "from the least to the greatest value",
        dicom(
            pixels=np.float32([[0, 0.5, 1]]),
            encode=False,
            FloatPixelData=np.float32([[0, 0.5, 1]]).tobytes(),
            PixelRepresentation=None,
            BitsStored=None,
            HighBit=None,
        ),
        [[0, 128, 255]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Several frames",
        "the frame that `#frame=N` selects, which alone is decoded",
        dicom("cine.dcm#frame=1", np.stack([RAMP, RAMP[::-1]])),
        STRETCHED[::-1],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Several frames, none selected",
        "refused; says how many there are",
        dicom("cine.dcm", np.stack([RAMP, RAMP])),
        refused="has 2 frames.* Select one.*#frame=1",
        needs=PYDICOM,
    ),
    # DICOM: colour.
    Case(
        DICOM,
        "PALETTE COLOR of 16 bits",
        "the palette; indices beyond its end get its last colour",
        dicom(pixels=_INDICES, **_PALETTE, **_CHANNELS),
        [[RED, GREEN, BLUE, BLUE]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "PALETTE COLOR whose first index is not 0",
        "the palette; indices before its start get its first colour",
        dicom(
            pixels=np.uint16([[0, 301, 302]]),
            **(_PALETTE | _CHANNELS | {"RedPaletteColorLookupTableDescriptor": [3, 300, 16]}),
        ),
        [[RED, GREEN, BLUE]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "PALETTE COLOR of 8 bits, two entries a word",
        "the palette",
        dicom(
            pixels=_INDICES,
            **(
                _PALETTE
                | {
                    "RedPaletteColorLookupTableDescriptor": [4, 0, 8],
                    "RedPaletteColorLookupTableData": bytes([255, 0, 0, 9]),
                    "GreenPaletteColorLookupTableData": bytes([0, 255, 0, 9]),
                    "BluePaletteColorLookupTableData": bytes([0, 0, 255, 9]),
                }
            ),
        ),
        [[RED, GREEN, BLUE, [9, 9, 9]]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "PALETTE COLOR, segmented",
        "the palette, written out",
        dicom(
            pixels=_INDICES,
            **_PALETTE,
            SegmentedRedPaletteColorLookupTableData=_words(0, 1, 0xFFFF, 0, 2, 0, 0),
            SegmentedGreenPaletteColorLookupTableData=_words(0, 3, 0, 0xFFFF, 0),
            SegmentedBluePaletteColorLookupTableData=_words(0, 2, 0, 0, 1, 1, 0xFFFF),
        ),
        [[RED, GREEN, BLUE, BLUE]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "YBR_FULL",
        "converted to RGB, once",
        dicom(pixels=_YBR_RED, PhotometricInterpretation="YBR_FULL"),
        np.tile(np.array([254, 0, 0]), (2, 2, 1)),
        tolerance=1,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "YBR_FULL_422, uncompressed",
        "converted to RGB, once",
        dicom(
            pixels=_YBR_RED,
            PhotometricInterpretation="YBR_FULL_422",
            PixelData=bytes([76, 76, 85, 255] * 2),
        ),
        np.tile(np.array([254, 0, 0]), (2, 2, 1)),
        tolerance=1,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "RGB by planes",
        "as stored",
        dicom(
            pixels=np.zeros((1, 2, 3), np.uint8),
            PlanarConfiguration=1,
            PixelData=bytes([255, 0, 0, 0, 0, 255]),
        ),
        [[RED, BLUE]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "RGB of 16 bits",
        "all of Bits Stored",
        dicom(pixels=np.uint16([[[4095, 0, 2048]]]), BitsStored=12, HighBit=11),
        [[[255, 0, 128]]],
        needs=PYDICOM,
    ),
    # DICOM: geometry and compression.
    Case(
        DICOM,
        "Pixels that are not square (Pixel Spacing, Pixel Aspect Ratio)",
        "the longer side filled in bilinearly; less than 1 % counts as square",
        dicom(pixels=np.uint8([[10, 10], [90, 90]]), PixelSpacing=[2, 1]),
        [[10, 10], [30, 30], [70, 70], [90, 90]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Pixels whose sides differ by less than 1 %",
        "as stored",
        dicom(pixels=np.uint8([[10, 10], [90, 90]] * 60), PixelSpacing=[1.009, 1]),
        [[10, 10], [90, 90]] * 60,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Pixel Aspect Ratio",
        "the longer side filled in bilinearly",
        dicom(pixels=np.uint8([[10, 90], [10, 90]]), PixelAspectRatio=["1", "2"]),
        [[10, 30, 70, 90], [10, 30, 70, 90]],
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "RLE Lossless",
        "decoded by pydicom",
        compressed("1.2.840.10008.1.2.5", RAMP),
        STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "JPEG 2000 Lossless",
        "decoded by gdcm, OpenJPEG or Pillow",
        compressed("1.2.840.10008.1.2.4.90", np.kron(RAMP, np.ones((16, 16), np.int16))),
        np.kron(STRETCHED, np.ones((16, 16))),
        needs=("pydicom", "openjpeg", "pylibjpeg"),
    ),
    Case(
        DICOM,
        "JPEG Lossless",
        "decoded by gdcm",
        lambda folder: by_gdcm(folder, "JPEGLosslessProcess14_1"),
        STRETCHED,
        needs=("pydicom", "gdcm"),
    ),
    Case(
        DICOM,
        "JPEG-LS",
        "decoded by gdcm",
        lambda folder: by_gdcm(folder, "JPEGLSLossless"),
        STRETCHED,
        needs=("pydicom", "gdcm"),
    ),
    Case(
        DICOM,
        "JPEG baseline",
        "decoded by gdcm or Pillow",
        lambda folder: by_gdcm(folder, "JPEGBaselineProcess1", np.full((8, 8), 77, np.uint8)),
        np.full((8, 8), 77),
        tolerance=2,
        needs=("pydicom", "gdcm"),
    ),
    Case(
        DICOM,
        "MPEG-4 and other video",
        "refused; names the transfer syntax",
        dicom(syntax="1.2.840.10008.1.2.4.102", pixels=np.uint8([[1]])),
        refused="MPEG-4 AVC/H.264 High Profile / Level 4.1, which is not decoded",
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "JPEG of 12 bits",
        "refused; names what decodes it (licence: GPL)",
        dicom(syntax="1.2.840.10008.1.2.4.51", pixels=np.uint16([[1]]), BitsStored=12, HighBit=11),
        refused="JPEG Extended.*cannot be decoded.*pylibjpeg-libjpeg",
        needs=PYDICOM,
    ),
    # DICOM: what is known by its content.
    Case(
        DICOM,
        "No ending, or another one",
        "known by `DICM` behind the preamble",
        dicom("IM0001"),
        STRETCHED,
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "No preamble",
        "known by its first element",
        lambda folder: _without_preamble(folder),
        STRETCHED,
        needs=PYDICOM,
    ),
    *(
        Case(
            DICOM,
            f"{what}: an object without pixels",
            "refused; says what it is",
            dicom(pixels=RAMP, encode=False, SOPClassUID=uid, Modality=modality),
            refused=f"DICOM class '{what}', which holds no pixels",
            needs=PYDICOM,
            row="Objects without pixels: SR, RTSTRUCT, KO, presentation states, encapsulated PDF",
        )
        for what, uid, modality in (
            ("Basic Text SR Storage", "1.2.840.10008.5.1.4.1.1.88.11", "SR"),
            ("RT Structure Set Storage", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
            ("Key Object Selection Document Storage", "1.2.840.10008.5.1.4.1.1.88.59", "KO"),
            (
                "Grayscale Softcopy Presentation State Storage",
                "1.2.840.10008.5.1.4.1.1.11.1",
                "PR",
            ),
            ("Encapsulated PDF Storage", "1.2.840.10008.5.1.4.1.1.104.1", "DOC"),
        )
    ),
    *(
        Case(
            DICOM,
            f"{photometric}: a colour space that is not read",
            "refused; names it",
            dicom(pixels=np.zeros((1, 2, 3), np.uint8), PhotometricInterpretation=photometric),
            refused=f"pixels in {photometric}, which is not read",
            needs=PYDICOM,
            row="Colours in YBR_PARTIAL, HSV, ARGB, CMYK",
        )
        for photometric in ("YBR_PARTIAL_422", "YBR_PARTIAL_420", "HSV", "CMYK")
    ),
    Case(
        DICOM,
        "Supplemental palette (Pixel Presentation COLOR or MIXED)",
        "refused",
        dicom(PixelPresentation="MIXED"),
        refused="supplemental palette, which is not applied",
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Burned In Annotation YES",
        "refused: names may stand in the picture",
        dicom(BurnedInAnnotation="YES"),
        refused="text burned into its pixels",
        needs=PYDICOM,
    ),
    Case(
        DICOM,
        "Ultrasound, secondary capture and the like that do not say NO",
        "refused: names may stand in the picture",
        dicom(Modality="US"),
        refused="text burned into its pixels",
        needs=PYDICOM,
    ),
    # NIfTI.
    *(
        Case(
            NIFTI,
            f"Stored {codes}",
            "turned to one orientation, as on a light box",
            nifti("head.nii.gz#plane=axial,slice=5", codes=codes),
            axial(),
            needs=NIBABEL,
            row="Stored in any orientation (RAS, LAS, LPS, ASR, ...)",
        )
        for codes in ("RAS", "LAS", "LPS", "RPI", "ASR", "RIA", "PSL", "IPL")
    ),
    Case(
        NIFTI,
        "`plane=axial`, the same as `axis=2`",
        "from the feet; the patient's right on the left, the front up",
        nifti("head.nii#axis=2,slice=0"),
        axial(number=0),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "`plane=coronal`, the same as `axis=1`",
        "from the back; the patient's right on the left, the head up",
        nifti("head.nii#plane=coronal,slice=4"),
        np.round(np.flip(HEAD[:, 4, :]).T / 100 * 255),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "`plane=sagittal`, the same as `axis=0`",
        "from the patient's left; the front on the left, the head up",
        nifti("head.nii#plane=sagittal,slice=3", codes="LPS"),
        np.round(np.flip(HEAD[3, :, :]).T / 100 * 255),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Voxels that are not cubes",
        "square pixels: the longer side filled in bilinearly",
        nifti(
            "head.nii#plane=coronal,slice=0",
            volume=np.int16([[[0, 100]]]),
            voxels=(1, 1, 2),
        ),
        [[255], [191], [64], [0]],
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Further axes of length 1",
        "left out",
        nifti("b0.nii.gz#plane=axial,slice=5", volume=HEAD[..., None, None]),
        axial(),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Several volumes (4-D)",
        "the volume that `volume=N` selects",
        nifti("f.nii.gz#plane=axial,slice=5,volume=1", volume=np.stack([HEAD * 0, HEAD], axis=-1)),
        axial(),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Several volumes, none selected",
        "refused; says how many there are",
        nifti("f.nii.gz#plane=axial,slice=5", volume=np.stack([HEAD, HEAD], axis=-1)),
        refused="holds 2 volumes.*volume=0",
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "One slice, none selected",
        "that slice",
        nifti("x.nii.gz", volume=HEAD[:, :, 5:]),
        axial(),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Several slices, none selected",
        "refused; says how many each plane has",
        nifti("head.nii.gz"),
        refused="sagittal 4, coronal 5, axial 6.* Select one.*#plane=axial,slice=3",
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "A slice that is not there",
        "refused",
        nifti("head.nii.gz#plane=axial,slice=6"),
        refused="no such slice; there are sagittal 4, coronal 5, axial 6",
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "RGB voxels",
        "as stored",
        nifti(
            "c.nii#plane=axial,slice=0",
            volume=lambda: np.array(
                [[[(255, 0, 0)]], [[(0, 0, 255)]]], dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]
            ),
        ),
        [[BLUE, RED]],
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Scale slope NaN or 0",
        "no scaling, as the standard says",
        lambda folder: _with_slope(folder, float("nan")),
        axial(),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "NIfTI-2, a name without an ending",
        "known by its content",
        nifti("head#plane=axial,slice=5", version=2),
        axial(),
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "No orientation (qform and sform code 0)",
        "refused: nobody can tell left from right",
        nifti("head.nii#plane=axial,slice=5", known=False),
        refused="does not say how it lies in the patient",
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Complex values",
        "refused",
        nifti("k.nii#plane=axial,slice=0", volume=HEAD.astype(np.complex64)),
        refused="complex values",
        needs=NIBABEL,
    ),
    Case(
        NIFTI,
        "Header and values in two files (`.hdr`, `.img`)",
        "refused; says what to do",
        content("head.hdr", b"\x5c\x01\0\0" + b"\0" * 340 + b"ni1\0"),
        refused="values lie in another file.* Save the two as one",
        needs=NIBABEL,
    ),
    # Windows of a CT.
    *(
        Case(
            CT,
            f"`#window={window}`: {' / '.join(f'{low} to {high}' for low, high in ranges)} HU",
            "the three as red, green and blue" if len(ranges) == 3 else "black to white",
            dicom(f"ct.dcm#window={window}", _STORED_HU, **_CT),
            np.stack(
                [np.round(np.clip((_HU - low) / (high - low), 0, 1) * 255) for low, high in ranges],
                axis=-1,
            ),
            needs=PYDICOM,
        )
        for window, ranges in {
            "lung": [(-1350, 150)],
            "bone": [(-500, 1300)],
            "soft-tissue": [(-150, 250)],
            "brain": [(0, 80)],
            "medgemma": [(-1024, 1024), (-135, 215), (0, 80)],
        }.items()
    ),
    Case(
        CT,
        "A window of a NIfTI volume in Hounsfield units",
        "as in DICOM",
        nifti(
            "ct.nii#plane=axial,slice=0,window=brain",
            volume=_HU.astype(np.int16).T[::-1, :, None],
        ),
        np.round(np.clip(_HU / 80, 0, 1) * 255),
        needs=NIBABEL,
    ),
    Case(
        CT,
        "A window of a NIfTI volume without a value below -100",
        "refused: not Hounsfield units",
        nifti("mr.nii#plane=axial,slice=5,window=brain"),
        refused="no value is below -100",
        needs=NIBABEL,
    ),
    Case(
        CT,
        "A window of an MR, or of a CT in another unit",
        "refused",
        dicom("mr.dcm#window=brain", Modality="MR", **_CT),
        refused="not a CT with values in Hounsfield units",
        needs=PYDICOM,
    ),
    Case(
        CT,
        "A window of a CT whose Rescale Type is US",
        "refused",
        dicom("ct.dcm#window=lung", **(_CT | {"RescaleType": "US"})),
        refused="not a CT with values in Hounsfield units",
        needs=PYDICOM,
    ),
    # Names and other formats.
    *(
        Case(
            NAMES,
            f"`a.png#{text}`",
            "refused; says what is known",
            picture(f"a.png#{text}", lambda: Image.new("L", (2, 1))),
            refused=refused,
        )
        for text, refused in (
            ("frame=x", "frame=x is not a whole number"),
            ("frame=-1", "frame=-1 is not a whole number"),
            ("frmae=1", "'frmae' behind '#' is not known.*frame, frames"),
            ("frame=1,frame=2", "the frame is selected twice"),
            ("plane=top", "there is no plane 'top'.*sagittal, coronal, axial"),
            ("axis=3", "there is no axis '3'"),
            ("window=liver", "there is no window 'liver'.*lung, bone"),
            ("slice=1", "'slice' selects nothing in this file"),
            ("slices=8", "stands for several images"),
        )
    ),
    *(
        Case(NAMES, what, "refused; says what it is", content(name, data), refused=refused)
        for what, name, data, refused in (
            ("A GIF named `.png`", "a.png", b"GIF89a" + b"\0" * 50, "it is a GIF"),
            ("A PDF named `.jpg`", "a.jpg", b"%PDF-1.7", "it is a PDF"),
            ("A HEIC photograph", "a.heic", b"\0\0\0\x18ftypheic" + b"\0" * 20, "HEIC"),
            ("JPEG 2000 outside of DICOM", "a.jp2", b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
            ("A Git LFS pointer", "a.png", b"version https://git-lfs.github.com", "Git LFS"),
            ("An Analyze header", "a.hdr", b"\x5c\x01\0\0" + b"\0" * 344, "an Analyze header"),
            ("An NRRD volume", "a.nrrd", b"NRRD0004\n", "NRRD"),
            ("A MetaImage volume", "a.mha", b"ObjectType = Image\n", "MetaImage"),
            ("A NumPy array", "a.npy", b"\x93NUMPY\x01\0", "NumPy"),
            ("A page of HTML instead of the picture", "a.jpg", b"\n<!DOCTYPE html>", "HTML"),
            ("An empty file", "a.png", b"", "the file is empty"),
        )
    ),
]


def by_gdcm(folder: Path, syntax: str, pixels: np.ndarray = RAMP) -> str:
    """A compressed file, as gdcm writes it."""
    import gdcm

    (folder / "plain.dcm").write_bytes(dicom_bytes(pixels))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "scan.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return "scan.dcm"


def _big_endian(folder: Path) -> str:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(np.int16([[10, 11, 12, 99]]))))
    dataset.VOILUTSequence = table(10, 16, [0, 1000, 4095])
    # In memory, bytes are in the order of the file.
    swapped = np.frombuffer(dataset.VOILUTSequence[0].LUTData, "<u2").astype(">u2")
    dataset.VOILUTSequence[0].LUTData = swapped.tobytes()
    dataset.PixelData = np.array([[10, 11, 12, 99]], ">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    pydicom.dcmwrite(
        folder / "scan.dcm",
        dataset,
        implicit_vr=False,
        little_endian=False,
        force_encoding=True,
    )
    return "scan.dcm"


def _without_preamble(folder: Path) -> str:
    (folder / "scan").write_bytes(dicom_bytes(RAMP)[132:])
    return "scan"


def _with_slope(folder: Path, slope: float) -> str:
    raw = bytearray(nifti_bytes())
    raw[112:116] = struct.pack("<f", slope)
    (folder / "head.nii").write_bytes(raw)
    return "head.nii#plane=axial,slice=5"
