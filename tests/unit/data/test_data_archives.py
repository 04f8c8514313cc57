import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from exgra_med.data.download.archives import unpack
from exgra_med.data.prepare import prepare
from exgra_med.errors import DataError


def make_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for member in members:
            bundle.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(
    name: str, size: int = 3, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


@pytest.mark.parametrize(
    "bad, message",
    [
        (member("../evil.txt"), "leaves the folder"),
        (member("/etc/evil.txt"), "leaves the folder"),
        (member("a/../../evil.txt"), "leaves the folder"),
        (member("link", 0, tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
        (member("link", 0, tarfile.LNKTYPE, "good.txt"), "link or a device"),
        (member("device", 0, tarfile.CHRTYPE), "link or a device"),
        (member("pipe", 0, tarfile.FIFOTYPE), "link or a device"),
        (member("big", 2000), "more than the allowed bytes"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_a_tar_that_is_not_safe_is_refused_and_leaves_nothing(
    tmp_path: Path, bad: tarfile.TarInfo, message: str
) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", member("good.txt"), bad)
    with pytest.raises(DataError, match=message):
        unpack(archive, tmp_path / "out", max_bytes=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_zip_that_is_not_safe_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    device = zipfile.ZipInfo("device")
    device.external_attr = 0o020666 << 16
    cases = [
        ("../evil", "leaves the folder"),
        ("/etc/evil", "leaves the folder"),
        ("a\\..\\evil", "leaves the folder"),
        (link, "is a link or a device"),
        (device, "is a link or a device"),
        ("bomb", "allowed bytes"),
    ]
    for name, message in cases:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr(name, b"0" * (5_000_000 if name == "bomb" else 10))
        with pytest.raises(DataError, match=message):
            unpack(archive, tmp_path / "out", max_bytes=1_000_000)
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("secret", b"x")
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="'secret' is encrypted"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_members_and_broken_archives(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", *(member(f"{n}") for n in range(5)))
    with pytest.raises(DataError, match="more than 4 members"):
        unpack(archive, tmp_path / "out", max_members=4)
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(DataError, match="broken archive"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="broken archive"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_dataset_is_prepared_from_its_archive(rad: Path, tmp_path: Path, ending: str) -> None:
    archive = tmp_path / f"rad.{ending}"
    files = [path for path in rad.rglob("*") if path.is_file()]
    if ending == "zip":
        with zipfile.ZipFile(archive, "w") as bundle:
            for path in files:
                bundle.write(path, f"VQA_RAD/{path.relative_to(rad)}")
    else:
        with tarfile.open(archive, "w:gz") as bundle:
            bundle.add(rad, "VQA_RAD")
    unpacked = prepare("vqa-rad", rad, tmp_path / "a")
    packed = prepare("vqa-rad", archive, tmp_path / "b")
    assert packed.fingerprint == unpacked.fingerprint
    assert not list(tmp_path.glob(".*"))


def test_a_zip_whose_header_says_less_than_comes_out_is_broken(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("bomb", b"0" * 5_000_000)
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.find(signature) + offset
        content[place : place + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DataError, match="broken archive"):
        unpack(archive, tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "out").exists()


def test_a_sparse_member_counts_with_the_size_that_it_would_have(tmp_path: Path) -> None:
    # GNU's old format: one kilobyte in the archive, a terabyte on the disk.
    real = 2**40
    header = bytearray(member("huge", 0).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" * 2
    # In base 256, as GNU writes numbers that octal digits cannot hold.
    header[483:495] = b"\x80" + real.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with tarfile.open(tmp_path / "a.tar") as bundle:
        assert bundle.next().size == real
    with pytest.raises(DataError, match="more than the allowed bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_get_the_mode_of_the_umask_and_none_of_the_archive(tmp_path: Path) -> None:
    odd = member("odd.txt")
    odd.mode = 0o4000
    unpack(make_tar(tmp_path / "a.tar.gz", odd), tmp_path / "out")
    (tmp_path / "plain.txt").touch()
    assert (tmp_path / "out/odd.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode
