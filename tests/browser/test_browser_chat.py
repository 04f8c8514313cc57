"""The page as a visitor uses it: pictures, questions, streaming, stop, two models, views."""

import base64
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_browser_access import serious

from conftest import PICTURES, look, open_study

pytestmark = pytest.mark.browser
SAMPLE = Path(__file__).resolve().parents[2] / "src/exgra_med/data/samples/vqa-rad-sample/images"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def upload(page: Any, name: str, content: bytes) -> None:
    page.set_input_files(
        "#upload input[type=file]",
        {"name": name, "mimeType": "application/octet-stream", "buffer": content},
    )


def ask(page: Any, question: str) -> None:
    items = page.locator("#conversation li")
    before = items.count()
    page.fill("#question textarea", question)
    page.click("#send")
    items.nth(before).wait_for()  # from then on the status is that of this question


def done(page: Any) -> None:
    page.wait_for_selector("#status >> text=The answer is complete")


def vqa_rad() -> bytes:
    return sorted(SAMPLE.glob("*.jpg"))[0].read_bytes()


def test_a_picture_a_question_and_words_one_by_one(
    visit: Callable[..., Any], words: Any, live: Any
) -> None:
    words.say(*(f"word{number} " for number in range(30)), pause_seconds=0.1)
    page = visit()
    upload(page, "Anna Secret.jpg", vqa_rad())
    image = page.wait_for_selector("#picture img")
    assert re.fullmatch(r"The picture you gave, \d+ × \d+ pixels", image.get_attribute("alt"))
    assert not live.uploads(), "the file is deleted once its pixels are read"
    ask(page, "What is shown?")
    answer = page.locator("#conversation .reply").nth(1).locator(".text")
    answer.filter(has_text="word3").wait_for()
    early = answer.inner_text()
    assert "word29" not in early
    done(page)
    assert answer.inner_text().startswith(early.strip()[:20])
    assert "word29" in answer.inner_text()
    timing = page.locator("#conversation .timing")
    assert re.search(r"\d+ tokens in \d+\.\d\d s", timing.nth(0).inner_text())
    told = timing.nth(1).inner_text()
    assert re.fullmatch(r"first word after \d+\.\d\d s · \d+\.\d\d s in all", told)
    body = words.bodies[-1]
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png")
    words.say("second")
    ask(page, "Are you sure?")
    done(page)
    assert len(words.bodies[-1]["messages"]) == 1
    page.get_by_label("Keep the conversation").check()
    ask(page, "Are you sure?")
    done(page)
    assert len(words.bodies[-1]["messages"]) == 5
    assert page.locator("#conversation li").count() == 3


def test_several_pictures_are_shown_and_sent_in_order(
    visit: Callable[..., Any], words: Any, live: Any
) -> None:
    words.say("new")
    page = visit()
    paths = sorted(SAMPLE.glob("*.jpg"))[:3]
    page.set_input_files(
        "#upload input[type=file]",
        [
            {"name": f"Anna {9 - number}.jpg", "mimeType": "image/jpeg", "buffer": p.read_bytes()}
            for number, p in enumerate(paths)
        ],
    )
    page.locator("#picture .several img").nth(2).wait_for()
    sizes = [Image.open(path).size for path in paths]
    alts = [each.get_attribute("alt") for each in page.query_selector_all("#picture img")]
    assert alts == [
        f"Picture {number} of 3, {width} × {height} pixels"
        for number, (width, height) in enumerate(sizes, start=1)
    ]
    assert not live.uploads(), "the files are deleted once their pixels are read"
    ask(page, "Is <image> newer than <image> and <image>?")
    done(page)
    parts = words.bodies[-1]["messages"][0]["content"]
    assert [part.get("text") for part in parts] == [
        "Is ", None, " newer than ", None, " and ", None, "?"
    ]  # fmt: skip
    sent = [part["image_url"]["url"].partition(",")[2] for part in parts[1::2]]
    assert [Image.open(io.BytesIO(base64.b64decode(each))).size for each in sent] == sizes
    page.get_by_label("Keep the conversation").check()
    ask(page, "Only <image>?")
    done(page)
    problems = page.locator("#conversation li").nth(1).locator(".problem")
    assert "4 times for 3 images; give one for each" in problems.nth(1).inner_text()


def test_stop_and_clear(visit: Callable[..., Any], words: Any, live: Any) -> None:
    words.say(*(f"word{number} " for number in range(300)), pause_seconds=0.1)
    page = visit()
    page.click("[data-example='1']")
    page.wait_for_selector("#picture img")
    assert page.input_value("#question textarea")
    page.click("#send")
    page.locator("#conversation .reply").nth(1).filter(has_text="word2").wait_for()
    page.click("#stop")
    page.wait_for_selector("#status >> text=Stopped")
    assert "stopped by you" in page.locator("#conversation .timing").nth(1).inner_text()
    page.wait_for_timeout(500)  # a word that was on its way may still come
    kept = page.locator("#conversation .reply").nth(1).locator(".text").inner_text()
    page.wait_for_timeout(1000)
    assert page.locator("#conversation .reply").nth(1).locator(".text").inner_text() == kept
    words.say("on")
    ask(page, "Go on?")
    done(page)
    page.click("#clear")
    page.wait_for_selector("#status >> text=deleted")
    assert page.locator("#conversation li").count() == 0
    assert page.locator("#picture img").count() == 0


def gigapixel() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 32768, 32768, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def burned_in() -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.BurnedInAnnotation, dataset.Modality = "Secret^Anna", "YES", "CT"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", bytes(16)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.jpg", lambda: vqa_rad()[:900], "cannot be decoded"),
        ("bomb.png", gigapixel, "pixels"),
        ("scan.dcm", burned_in, "text burned into its pixels"),
        ("page.html", lambda: b"<script>alert(1)</script>", "not a PNG, JPEG, TIFF or DICOM"),
    ],
)
def test_what_cannot_be_used_is_said(
    visit: Callable[..., Any],
    live: Any,
    keep_picture: Callable[..., None],
    name: str,
    content: Callable[[], bytes],
    message: str,
) -> None:
    page = visit()
    upload(page, name, content())
    problem = page.wait_for_selector("#problem [role=alert]")
    assert message in problem.inner_text()
    assert page.locator("#picture img").count() == 0
    assert not live.uploads() and "Secret" not in page.content()
    if name == "bomb.png":
        keep_picture(page, "problem")
    page.click("[data-example='0']")
    page.wait_for_selector("#picture img")
    assert page.locator("#problem [role=alert]").count() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_kept_as_a_picture(
    visit: Callable[..., Any],
    words: Any,
    keep_picture: Callable[..., None],
    scheme: str,
    size: str,
) -> None:
    words.say("Two ", "models ", "answer ", "side ", "by ", "side.")
    page = visit(scheme, *SIZES[size])
    keep_picture(page, f"start-{scheme}-{size}")
    page.click("[data-example='1']")
    page.wait_for_selector("#picture img")
    page.click("#send")
    done(page)
    names = page.locator("#conversation .reply h3").all_inner_texts()
    assert len(names) == 2 and names[1] == "B: words"
    boxes = [box.bounding_box() for box in page.locator("#conversation .reply").all()]
    beside = boxes[0]["y"] == boxes[1]["y"]
    assert beside == (size == "desktop")
    look(page)
    assert "does not say how likely" in page.locator("#looked .problem").inner_text()
    page.click("#vote-b")
    page.wait_for_selector("#tallies table")
    keep_picture(page, f"chat-{scheme}-{size}")
    notice = page.locator("#notice [role=note]")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    assert notice.is_visible() and "Research use only." in notice.inner_text()

    page.get_by_role("tab", name="Alignment").click()
    page.click("#graphs-draw")
    page.wait_for_selector("svg.graphs")
    assert page.locator("svg.graphs").count() == 6 == page.locator("svg.matrix").count()
    labels = [svg.get_attribute("aria-label") for svg in page.locator("svg.graphs").all()]
    assert all("matches are right" in label for label in labels)
    assert notice.is_visible()
    keep_picture(page, f"alignment-{scheme}-{size}")

    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("#answers .card")
    questions = page.locator("#overview .findings dt").all_inner_texts()
    assert len(questions) == 6 and all(each.endswith("?") for each in questions)
    keep_picture(page, f"runs-{scheme}-{size}")
    page.click("#runs-others input")
    page.get_by_role("option", name="other", exact=True).click()
    page.wait_for_selector("#compared table")
    keep_picture(page, f"compared-{scheme}-{size}")
    page.keyboard.press("Escape")
    open_study(page)
    page.wait_for_selector("#compared table", state="detached")
    assert page.locator("#overview .study figure svg").count() == 4
    assert "18 results kept" in page.locator("#overview").inner_text()
    keep_picture(page, f"study-{scheme}-{size}")
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page is wider than the window"


def test_blind_answers_get_their_names_with_the_vote(
    visit: Callable[..., Any], words: Any, keep_picture: Callable[..., None], live: Any
) -> None:
    words.say("left")
    page = visit(width=400)
    page.get_by_label("Blind: names after the vote").check()
    page.click("[data-example='0']")
    page.wait_for_selector("#picture img")
    page.click("#send")
    done(page)
    assert page.locator("#conversation .reply h3").all_inner_texts() == ["A", "B"]
    assert "words" not in page.locator("#conversation").inner_text()
    keep_picture(page, "blind")
    before = len(live.votes.read_text().splitlines())
    page.click("#vote-equal")
    page.wait_for_selector("#conversation .voted")
    assert "words" in page.locator("#conversation").inner_text()
    assert not page.locator("#vote-a").is_visible()
    lines = [json.loads(line) for line in live.votes.read_text().splitlines()]
    assert len(lines) == before + 1
    assert lines[-1]["blind"] is True and lines[-1]["better"] is None
    page.click("#clear")
    page.wait_for_selector("#status >> text=deleted")
    assert page.locator("#tallies table").is_visible()


def test_one_model_of_the_menu_is_asked(visit: Callable[..., Any], words: Any) -> None:
    words.say("fine")
    page = visit()
    pick(page, "other", "no other model")
    page.wait_for_selector("#answering li:nth-child(2)", state="detached")
    pick(page, "model", "words")
    page.wait_for_selector("#answering >> text=words answers.")
    ask(page, "What?")
    done(page)
    assert page.locator("#conversation .reply h3").all_inner_texts() == ["words"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_run_in_training_is_watched(
    visit: Callable[..., Any], run_folder: Path, keep_picture: Callable[..., None], scheme: str
) -> None:
    from exgra_med import files
    from exgra_med.training.log import TrainingLog

    now = run_folder.parent / "other"
    log = TrainingLog(now / "log.jsonl")
    kept = log.path.read_bytes()
    with files.sole_writer(now / files.LOCK, now):
        page = visit(scheme, 400 if scheme == "light" else 1280)
        page.get_by_role("tab", name="Runs").click()
        page.wait_for_selector("#live figure svg")
        log.write(kind="stage", stage="vqa", event="resume", step=4, total_steps=40)
        for step in range(5, 9):
            log.write(kind="train", stage="vqa", step=step, language_loss=5.5 - step / 10)
        page.wait_for_selector("#live >> text=step 8 of 40")
        keep_picture(page, f"live-{scheme}")
        assert not serious(page)
        assert not page.locator("#overview .findings").count()
        with log.path.open("ab") as stream:
            stream.write(b'{"kind": "train", "sta')
        page.wait_for_timeout(5000)
        assert "step 8" in page.locator("#live").inner_text()
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, "the page is wider than the window"
    log.path.write_bytes(kept)
    page.wait_for_selector("#live figure", state="detached")
    page.wait_for_selector("#overview .findings")


def pick(page: Any, element: str, value: str) -> None:
    page.click(f"#{element} input")
    page.get_by_role("option", name=value, exact=True).click()


def test_wrong_answers_are_filtered(visit: Callable[..., Any], run_folder: Path) -> None:
    from exgra_med.web.run_view import read_answers

    answers = read_answers(run_folder)
    page = visit()
    page.get_by_role("tab", name="Runs").click()
    status = page.locator("#answers [role=status]")
    status.filter(has_text=f"{len(answers.select('not right'))} of {len(answers.rows)}").wait_for()
    pick(page, "runs-organ", "HEAD")
    expected = len(answers.select("not right", organ="HEAD"))
    status.filter(has_text=f"{expected} of {len(answers.rows)} answers").wait_for()
    pick(page, "runs-type", "closed")
    expected = len(answers.select("not right", organ="HEAD", type="closed"))
    status.filter(has_text=f"{expected} of {len(answers.rows)} answers").wait_for()
    assert page.locator("#answers .card img").count() == min(12, expected)
    assert "95 % interval" in page.locator("#overview").inner_text()
    assert page.locator("#overview figure svg").count() >= 3


def test_decoding_settings_reach_the_model(visit: Callable[..., Any], words: Any) -> None:
    words.say("fine")
    page = visit()
    page.get_by_role("button", name="Decoding").click()
    page.get_by_label("Temperature").first.fill("0.7")
    page.keyboard.press("Tab")
    page.get_by_label("Seed").fill("5")
    page.keyboard.press("Tab")
    ask(page, "What?")
    done(page)
    body = words.bodies[-1]
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.7, 5, 128)


def test_what_a_page_takes_is_kept_beside_the_pictures(live: Any) -> None:
    """No limit on time, which depends on the machine."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    figures = {"megabytes": live.resident_megabytes} | live.opened
    (PICTURES / "figures.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    assert figures["processor_seconds"] > 0 and figures["seconds"] > 0
