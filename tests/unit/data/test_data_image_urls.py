"""Figures from a list of packages: only what is named is kept, what fails is written down."""

import io
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Server
from PIL import Image

from exgra_med.cli import main
from exgra_med.data.download import image_urls
from exgra_med.data.download.fetch import FetchLimits
from exgra_med.data.download.image_urls import (
    FAILURES_FILE,
    ImageDownload,
    download_images,
    read_url_list,
)
from exgra_med.errors import DataError, ServiceError
from exgra_med.files import DiskFullError
from exgra_med.terminal import Silent

LIMITS = FetchLimits(
    max_bytes=1_000_000,
    read_timeout_seconds=0.3,
    total_seconds=5,
    num_attempts=1,
    backoff_seconds=0,
    allow_loopback=True,
)


def jpeg(colour: int = 90, side: int = 12) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 80, 70)).save(stream, "JPEG")
    return stream.getvalue()


def package(members: dict[str, bytes | None]) -> bytes:
    """A tar.gz; None makes a symbolic link out of it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as bundle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            bundle.addfile(info, io.BytesIO(content or b""))
    return stream.getvalue()


def write_list(folder: Path, entries: list[tuple[str, str, str]]) -> None:
    folder.mkdir(exist_ok=True)
    keys = ("pair_id", "pmc_tar_url", "image_file_path")
    lines = [json.dumps(dict(zip(keys, entry, strict=True))) for entry in entries]
    (folder / "llava_med_image_urls.jsonl").write_text("\n".join(lines) + "\n")


def download(folder: Path, **changes: Any) -> ImageDownload:
    return download_images(folder, Silent(), replace(LIMITS, **changes), num_workers=3)


def failures(folder: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (folder / FAILURES_FILE).read_text().splitlines()]
    return {row["pair_id"]: row["reason"] for row in rows}


def inside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_named_figures_are_kept_and_nothing_else(server: Server, tmp_path: Path) -> None:
    one = package({"P1/a.jpg": jpeg(1), "P1/paper.pdf": b"text", "P1/b.jpg": jpeg(2)})
    server.routes |= {"/1.tar.gz": one, "/2.tar.gz": package({"P2/c.jpg": jpeg(3)})}
    entries = [
        ("1_F1", server.url("/1.tar.gz"), "P1/a.jpg"),
        ("1_F2", server.url("/1.tar.gz"), "P1/b.jpg"),
        ("2_F1", server.url("/2.tar.gz"), "P2/c.jpg"),
    ]
    write_list(tmp_path, entries)
    result = download(tmp_path)
    assert (result.fetched, result.there_before, not result.failed) == (3, 0, True)
    assert sorted(server.asked) == ["/1.tar.gz", "/2.tar.gz"]
    assert (tmp_path / "images/1_F2.jpg").read_bytes() == jpeg(2)
    assert len(inside(tmp_path / "images")) == 3 and (tmp_path / FAILURES_FILE).read_text() == ""


def test_a_second_run_fetches_only_what_is_missing(server: Server, tmp_path: Path) -> None:
    server.routes["/1.tar.gz"] = package({"a.jpg": jpeg()})
    entries = [("1", server.url("/1.tar.gz"), "a.jpg"), ("2", server.url("/2.tar.gz"), "b.jpg")]
    write_list(tmp_path, entries)
    assert download(tmp_path).failed == {"the server answered 404": 1}
    server.routes["/2.tar.gz"] = package({"b.jpg": jpeg()})
    server.asked.clear()
    result = download(tmp_path)
    assert server.asked == ["/2.tar.gz"]
    assert (result.fetched, result.there_before) == (1, 1) and not failures(tmp_path)


def test_every_misfortune_is_in_the_ledger_and_the_rest_arrives(
    server: Server, tmp_path: Path
) -> None:
    good = jpeg()
    server.routes |= {
        "/good": package({"a.jpg": good}),
        "/hang": server.hang,
        "/cut": server.cut,
        "/metadata": server.redirect("http://169.254.169.254/latest/meta-data/"),
        "/parent": package({"../evil.jpg": good, "a.jpg": good}),
        "/absolute": package({"/etc/evil.jpg": good, "a.jpg": good}),
        "/link": package({"a.jpg": None}),
        "/other": package({"b.jpg": good}),
        "/text": package({"a.jpg": b"not an image"}),
        "/short": package({"a.jpg": jpeg(side=300)[:-200]}),
        "/no-tar": b"<html>sorry</html>",
        "/half-tar": package({"z": bytes(range(256)) * 40, "a.jpg": good})[:200],
        "/huge": b"0" * 1_000_001,
    }
    expected = {
        "absent": "the server answered 404",
        "hang": "no byte for 0.3 s",
        "cut": "the connection was cut before the end",
        "metadata": "refused: only https is fetched, not 'http'",
        "parent": "the package: the member '../evil.jpg' leaves the folder.",
        "absolute": "the package: the member '/etc/evil.jpg' leaves the folder.",
        "link": "the package: the member 'a.jpg' is a link or a device.",
        "other": "the package does not have the figure",
        "text": "the image cannot be decoded (unknown or broken format).",
        "short": "the image cannot be decoded (the file is cut short).",
        "no-tar": "the package: a broken archive.",
        "half-tar": "the package: a broken archive.",
        "huge": "larger than 1000000 bytes",
        "plain-http": "refused: only https is fetched, not 'http'",
    }
    entries = [(name, server.url(f"/{name}"), "a.jpg") for name in [*expected, "good"]]
    entries[-2] = ("plain-http", "http://8.8.8.8/a.tar.gz", "a.jpg")
    write_list(tmp_path, entries)
    result = download(tmp_path)
    assert failures(tmp_path) == expected
    assert result.fetched == 1 and result.failed["the server answered 404"] == 1
    assert inside(tmp_path) == sorted(
        [FAILURES_FILE, "images", "images/good.jpg", "llava_med_image_urls.jsonl"]
    )
    assert "14 not fetched" in "\n".join(result.lines())


def test_a_package_of_zeros_that_unpacks_endlessly_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_urls, "MAX_FIGURE_BYTES", 1000)
    server.routes |= {
        "/1": package({"a.jpg": b"0" * 1001}),
        "/good": package({"a.jpg": jpeg()}),
    }
    write_list(tmp_path, [(name, server.url(f"/{name}"), "a.jpg") for name in ("1", "good")])
    download(tmp_path)
    assert "more than 1000 bytes" in failures(tmp_path)["1"]


def test_only_figures_that_a_training_file_names_are_fetched(
    server: Server, tmp_path: Path
) -> None:
    server.routes["/1"] = package({"a.jpg": jpeg(), "b.jpg": jpeg()})
    write_list(tmp_path, [("1", server.url("/1"), "a.jpg"), ("2", server.url("/1"), "b.jpg")])
    (tmp_path / "talk.json").write_text('[{"image": "2.jpg"}, {"image": "3.jpg"}, {"id": "x"}]')
    result = download(tmp_path)
    assert inside(tmp_path / "images") == ["2.jpg"]
    assert result.not_listed == 1 and "1 figures are not in the list" in result.lines()[1]
    (tmp_path / "talk.json").write_text('[{"image": "9.jpg"}]')
    with pytest.raises(DataError, match="none of the 1 figures"):
        download(tmp_path)


def test_when_nothing_arrives_it_is_an_error(server: Server, tmp_path: Path) -> None:
    write_list(tmp_path, [("1", server.url("/1"), "a.jpg")])
    with pytest.raises(ServiceError, match=r"None of 1 figures .* answered 404"):
        download(tmp_path)
    assert failures(tmp_path)


def test_a_full_disk_stops_the_download(server: Server, tmp_path: Path, full_disk: None) -> None:
    server.routes["/1"] = package({"a.jpg": jpeg()})
    write_list(tmp_path, [(str(n), server.url("/1"), "a.jpg") for n in range(20)])
    with pytest.raises(DiskFullError):
        download(tmp_path)
    assert not inside(tmp_path / "images")


@pytest.mark.parametrize(
    "line, message",
    [
        ("version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        ("{", "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"pair_id": "1", "pmc_tar_url": "https://x"}', "expected an object"),
        ('{"pair_id": 1, "pmc_tar_url": "u", "image_file_path": "p"}', "expected an object"),
        ('{"pair_id": "../1", "pmc_tar_url": "u", "image_file_path": "p"}', "no plain name"),
        ('{"pair_id": "a/b", "pmc_tar_url": "u", "image_file_path": "p"}', "no plain name"),
        ('{"pair_id": ".a", "pmc_tar_url": "u", "image_file_path": "p"}', "no plain name"),
        ('{"pair_id": "1", "pmc_tar_url": "v", "image_file_path": "p"}', "second place"),
    ],
)
def test_a_list_that_cannot_be_understood(tmp_path: Path, line: str, message: str) -> None:
    write_list(tmp_path, [("1", "u", "p"), ("1", "u", "p")])
    path = tmp_path / "llava_med_image_urls.jsonl"
    assert read_url_list(path) == {"u": {"1": "p"}}
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        read_url_list(path)


def test_a_folder_without_a_list_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 0 files"):
        download(tmp_path)


def test_the_verb_fetches_then_prepares(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    server.routes["/1"] = package({"a.jpg": jpeg(), "b.jpg": jpeg(1)})
    write_list(tmp_path, [("1", server.url("/1"), "a.jpg"), ("2", server.url("/1"), "b.jpg")])
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    items = [{"id": n, "image": f"{n}.jpg", "conversations": talk} for n in ("1", "2")]
    (tmp_path / "talk.json").write_text(json.dumps(items))
    arguments = ["prepare", "llava-med", "--source", str(tmp_path), "--out", str(tmp_path / "out")]

    def run(*more: str) -> int:
        monkeypatch.setattr(sys, "argv", ["exgra-med", "data", *arguments, "--download", *more])
        with pytest.raises(SystemExit) as caught:
            main.run()
        return int(caught.value.code or 0)

    assert run() == 1 and not server.asked
    assert "refused: only https" in capsys.readouterr().err
    assert run("--allow-loopback", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"]["count"] == 2
    assert "figures: 2 fetched" in captured.err and "MiB/s" in captured.err
