"""The page of a review over HTTP: it stores at once, survives a kill, and lets no other site in."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.captions.judgements import JudgementFile
from exgra_med.captions.records import open_records
from exgra_med.data.images import ImageFolder
from exgra_med.errors import DataError, ServiceError
from exgra_med.web.review import Review, choose_items, serve_review

SOURCE = Path(__file__).resolve().parents[3] / "src"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Twenty answers; the last one says the other side."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20), "red").save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_bytes(b"no picture")
    with (tmp_path / "long.jsonl").open("w") as stream:
        for number in range(20):
            talk = [
                {"role": "user", "text": f"Is a mass seen in {EVIL}?"},
                {"role": "assistant", "text": "Yes"},
            ]
            text = "No, none." if number == 19 else f"Yes, the mass {chr(97 + number)} is seen."
            name = "b.png" if number == 0 else "a.png"
            row = {"id": f"r/{number}", "image": name, "turns": talk, "extended": [text]}
            stream.write(json.dumps(row) + "\n")
    return tmp_path / "long.jsonl"


class Site:
    """A page at an address, with and without what a browser would send."""

    def __init__(self, address: str) -> None:
        _, _, self.host, self.key, _ = address.split("/")

    def ask(
        self, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            names = {"Content-Type": "application/json"} | names
        raw = None if body is None else json.dumps(body).encode()
        try:
            connection.request(
                "GET" if body is None else "POST",
                f"/{self.key if key is None else key}/{path}",
                raw,
                names,
            )
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, path: str, body: object = None) -> Any:
        status, _, raw = self.ask(path, body)
        assert status == 200, raw
        return json.loads(raw)

    def judge(self, number: int, verdict: str, note: str = "") -> Any:
        return self.json(f"judgements/{number}", {"verdict": verdict, "note": note})


@pytest.fixture
def site(captions: Path) -> Iterator[Site]:
    opened: list[str] = []
    ready = threading.Event()

    def on_open(address: str) -> None:
        opened.append(address)
        ready.set()

    images = ImageFolder(captions.parent / "images", 10**6)
    with JudgementFile(str(captions), "ana") as file:
        review = Review("long", choose_items(open_records(str(captions))), images, file)
        thread = threading.Thread(target=serve_review, args=(review, 0, on_open), daemon=True)
        thread.start()
        assert ready.wait(20)
        yield Site(opened[0])


def start(captions: Path, log: Path) -> tuple["subprocess.Popen[bytes]", Site]:
    given = ["captions", "review", str(captions), "--rater", "ana", "--port", "0"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "exgra_med", *given],
            stderr=stream,
            env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        )
    for _ in range(1200):
        for line in log.read_text().splitlines():
            if line.startswith("The page is open: "):
                return process, Site(line.removeprefix("The page is open: "))
        assert process.poll() is None, log.read_text()
        threading.Event().wait(0.05)
    raise AssertionError(log.read_text())


def test_a_killed_review_loses_no_judgement(captions: Path, tmp_path: Path) -> None:
    process, site = start(captions, tmp_path / "log")
    stored: dict[int, str] = {}
    try:
        for number in range(12):
            verdict = ("accept", "reject", "unsure")[number % 3]
            assert site.judge(number, verdict, f"note {number}")["verdict"] == verdict
            stored[number] = verdict

        def go_on() -> None:
            for number in range(12, 20):
                try:
                    site.judge(number, "reject")
                except (OSError, http.client.HTTPException):
                    return
                stored[number] = "reject"

        # Killed while judgements come in: whatever was answered is there.
        thread = threading.Thread(target=go_on)
        thread.start()
        process.send_signal(signal.SIGKILL)
        thread.join(20)
    finally:
        process.kill()
        assert process.wait(20) == -signal.SIGKILL
    with JudgementFile(str(captions), "ana") as file:
        again = Review("long", choose_items(open_records(str(captions))), None, file)
        verdicts = again.overview()["verdicts"]
        assert {number: verdicts[number] for number in stored} == stored
        assert [again.answer(number)["note"] for number in range(12)] == [
            f"note {number}" for number in range(12)
        ]


def test_the_worst_comes_first_with_its_signs_and_differences(site: Site) -> None:
    assert site.json("answers")["verdicts"] == [""] * 20
    first = site.json("answers/0")
    assert (first["id"], first["signs"][0]) == ("r/19", ["answer flipped", "yes became no"])
    assert first["extended"] == [["No, none.", True]] and first["answer"] == [["Yes", True]]
    assert site.json("answers/1")["extended"][0] == ["Yes, ", False]


def test_a_judgement_can_be_changed_and_read_again(site: Site) -> None:
    site.judge(3, "accept", "sure")
    site.judge(3, "reject", "")
    site.judge(4, "", "look again")
    assert site.json("answers")["verdicts"][3:5] == ["reject", ""]
    assert site.json("answers/4")["note"] == "look again"


def test_pictures_are_sent_without_their_files(site: Site) -> None:
    status, headers, raw = site.ask("pictures/0/0")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg") and raw[:2] == b"\xff\xd8"
    assert site.ask("pictures/0/1")[0] == 404
    broken = next(n for n in range(20) if site.json(f"answers/{n}")["id"] == "r/0")
    assert site.ask(f"pictures/{broken}/0")[0] == 400


def test_the_page_runs_no_markup_of_the_data(site: Site) -> None:
    status, headers, page = site.ask("")
    assert status == 200 and EVIL.encode() not in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and headers["Cache-Control"] == "no-store"
    script = site.ask("review.js")[2]
    assert b"innerHTML" not in script and b"insertAdjacentHTML" not in script
    assert b"--accent" in site.ask("review.css")[2]


BODY = {"verdict": "accept", "note": ""}


@pytest.mark.parametrize(
    ("status", "path", "body", "headers"),
    [
        (403, "answers", None, {"Host": "evil.example"}),
        (403, "judgements/0", BODY, {"Origin": "http://evil.example"}),
        (404, "answers", None, {"key": "wrong"}),
        (404, "judgements/0", BODY, {"key": ""}),
        (415, "judgements/0", BODY, {"Content_Type": "text/plain"}),
        (413, "judgements/0", {"verdict": "accept", "note": "x" * 40_000}, {}),
        (400, "judgements/0", ["accept"], {}),
        (400, "judgements/0", {"verdict": "maybe", "note": ""}, {}),
        (400, "judgements/0", {"verdict": "accept", "note": 5}, {}),
        (404, "judgements/20", BODY, {}),
        (404, "answers/20", None, {}),
        (404, "../pyproject.toml", None, {}),
        (404, "pictures/0/9", None, {}),
    ],
)
def test_what_is_not_the_page_is_refused(
    site: Site, status: int, path: str, body: object, headers: dict[str, str]
) -> None:
    found, sent, _ = site.ask(path, body, **headers)
    assert found == status
    assert "default-src 'none'" in sent["Content-Security-Policy"]
    assert site.json("answers")["verdicts"] == [""] * 20


def test_a_sample_is_the_same_for_two_raters(captions: Path) -> None:
    source = open_records(str(captions))
    drawn = [
        [item.answer.id for item in choose_items(source, False, 5, seed)] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 5
    assert [item.answer.id for item in choose_items(source, only_flagged=True)] == ["r/19"]


def test_nothing_to_review_is_said(captions: Path) -> None:
    lines = captions.read_text().splitlines()
    captions.write_text("\n".join(lines[:3]))
    with pytest.raises(DataError, match="no extended answer has a sign of a fault"):
        choose_items(open_records(str(captions)), only_flagged=True)
    captions.write_text("")
    with pytest.raises(DataError, match="no extended answer is there"):
        choose_items(open_records(str(captions)))


def test_a_port_that_is_taken_is_said(site: Site, captions: Path) -> None:
    with JudgementFile(str(captions), "bo") as file:
        review = Review("long", choose_items(open_records(str(captions))), None, file)
        with pytest.raises(ServiceError, match="cannot be listened on"):
            serve_review(review, int(site.host.partition(":")[2]), print)
