"""The same pixels wherever a picture comes in: folder, parquet file, shard, upload, Python."""

import base64
import io
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from picture_cases import MAX_PIXELS, RAMP, dicom, dicom_bytes, tiff, turned, with_alpha
from PIL import Image

import exgra_med
from exgra_med.data.images import ImageFolder
from exgra_med.data.prepare import prepare
from exgra_med.errors import DataError

KINDS: dict[str, Callable[[Path], str]] = {
    "EXIF": turned("jpg", 6),
    "alpha": lambda folder: save(folder / "a.png", with_alpha("RGBA")()),
    "WhiteIsZero": tiff("a.tif", np.uint16([[0, 500, 1000]]), photometric=0),
    "DICOM": dicom("IM1"),
}


def save(path: Path, image: Image.Image) -> str:
    image.save(path)
    return path.name


def made(kind: str, folder: Path) -> tuple[str, bytes, np.ndarray]:
    """Name, bytes and pixels of a picture."""
    if kind == "DICOM" and find_spec("pydicom") is None:
        pytest.skip("the extra [dicom] is not installed")
    name = KINDS[kind](folder)
    pixels = np.asarray(ImageFolder(folder, MAX_PIXELS).open(name))
    assert len(np.unique(pixels)) > 2
    return name, (folder / name).read_bytes(), pixels


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_and_what_is_prepared_from_it(kind: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    _, content, pixels = made(kind, tmp_path)
    (tmp_path / "shards").mkdir()
    rows = [{"image": {"bytes": content, "path": "x.jpg"}, "answer": "A caption."}] * 2
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "shards/a.parquet")
    prepared = prepare("shards", tmp_path / "shards", tmp_path / "out")
    records = [each for split in ("train", "validation") for each in prepared.records(split)]
    names = {name for record in records for name in record.images}
    assert len(records) == 2 and len(names) == 1
    stored = prepared.path / "images" / names.pop()
    assert stored.suffix == ".png"
    assert (np.asarray(Image.open(stored).convert("RGB")) == pixels).all()
    # Nothing of a patient went along.
    assert b"Invented" not in stored.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_uploads_and_services(kind: str, tmp_path: Path) -> None:
    from exgra_med.evaluation.engines import data_url
    from exgra_med.web.pictures import read_picture

    name, content, pixels = made(kind, tmp_path)
    assert (np.asarray(read_picture(content, MAX_PIXELS)) == pixels).all()
    url = data_url(ImageFolder(tmp_path, MAX_PIXELS).open(name))
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (np.asarray(sent) == pixels).all()


@pytest.mark.parametrize("kind", ["EXIF", "alpha", "WhiteIsZero"])
def test_pictures_that_python_hands_over(kind: str, tmp_path: Path) -> None:
    from exgra_med.model.assistant import open_images

    name, content, pixels = made(kind, tmp_path)
    by_path, by_pillow = open_images([tmp_path / name, Image.open(io.BytesIO(content))])
    assert (np.asarray(by_path) == pixels).all() and (np.asarray(by_pillow) == pixels).all()


def test_an_upload_of_several_frames_is_a_sentence() -> None:
    pytest.importorskip("pydicom", reason="the extra [dicom] is not installed")
    from exgra_med.web.pictures import read_picture

    with pytest.raises(DataError, match=r"^The image 'upload' has 2 frames\. Send a whole picture"):
        read_picture(dicom_bytes(np.stack([RAMP, RAMP])), MAX_PIXELS)


def test_no_warning_of_pillow_reaches_the_terminal(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\x7f\x06\0\0\0"
    Image.new("RGB", (8, 8), 99).save(tmp_path / "broken-exif.jpg", exif=exif)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png", transparency=b"\xff\x00")
    content = bytearray((tmp_path / tiff("a.tif", np.uint8([[9]]))(tmp_path)).read_bytes())
    content[4:8] = (len(content) - 60).to_bytes(4, "little")
    (tmp_path / "broken.tif").write_bytes(content)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from exgra_med.data.images import ImageFolder\n"
        "from exgra_med.errors import DataError\n"
        "for name in ('broken-exif.jpg', 'palette.png', 'broken.tif'):\n"
        "    try: print(name, ImageFolder(Path(sys.argv[1]), 999).open(name).size)\n"
        "    except DataError as error: print(name, error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(Path(exgra_med.__file__).parents[1]), "PATH": ""},
    )
    assert done.returncode == 0
    assert "PIL" not in done.stderr and "broken-exif.jpg (8, 8)" in done.stdout
    assert len(done.stdout.splitlines()) == 3
