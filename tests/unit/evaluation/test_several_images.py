"""Questions about several images: asked here and of a service, blinded, drawn in the report."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer
from PIL import Image
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Record, open_prepared
from exgra_med.errors import DataError
from exgra_med.evaluation.answers import question_of
from exgra_med.evaluation.engines import (
    CheckpointEngine,
    EngineOptions,
    data_url,
    greedy_answers,
    message_parts,
    shown_question,
)
from exgra_med.evaluation.graphs import Matched
from exgra_med.evaluation.likelihood import option_scores
from exgra_med.evaluation.report.graphs import pair_svg
from exgra_med.evaluation.report.page import make_card, template_environment
from exgra_med.evaluation.statistics import cluster_codes
from exgra_med.evaluation.tasks import vqa
from exgra_med.evaluation.tasks.multiple_choice import asked_with_options
from exgra_med.evaluation.tasks.reliance import blinded, shuffled_records, sided_records
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.model.generate import generate
from exgra_med.recipe.load import load_recipe
from several_images import TALKS, make_several, talk

RECORDS = [talk(name) for name in TALKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_several(tmp_path_factory.mktemp("several") / "data")


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    architecture = load_recipe("debug/tiny").recipe.model.architecture
    assert architecture is not None
    small = architecture.model_copy(
        update={"tokenizer": architecture.tokenizer.model_copy(update={"vocabulary_size": 330})}
    )
    return build_model(small, [each.question for each in RECORDS], seed=0)


def test_a_checkpoint_answers_with_all_images_at_their_places(folder: Path, tiny: Bundle) -> None:
    images = open_prepared(folder).image_folder(10**6)
    answers = greedy_answers(tiny, RECORDS, images, "exgra", 6)
    for record, answer in zip(RECORDS, answers, strict=True):
        shown = [images.open(name) for name in record.question_images]
        turns, tokens = record.turns[:1], tiny.num_image_tokens
        prompt = encode_prompt(tiny.tokenizer, turns, "exgra", tokens, len(shown))
        assert prompt.count(tiny.image_token_id) == tokens * len(shown)
        assert answer.text == generate(tiny, [prompt], [shown], 6)[0].text
    assert len(talk("over turns").question_images) == 1


def test_a_question_that_the_model_cannot_read_is_named(folder: Path, tiny: Bundle) -> None:
    images = open_prepared(folder).image_folder(10**6)
    question, answer = talk("in a sentence").turns
    long = question.model_copy(update={"text": "word " * 2000 + question.text})
    record = talk("in a sentence").model_copy(update={"turns": [long, answer]})
    with pytest.raises(DataError, match=r"^Record 'several/test/in a sentence': question and im"):
        greedy_answers(tiny, [talk("one"), record], images, "exgra", 4)


@pytest.mark.parametrize("name", ["four", "in a sentence", "over turns"])
def test_options_are_scored_with_the_images_of_the_first_question(
    folder: Path, tiny: Bundle, name: str
) -> None:
    record = talk(name).model_copy(update={"meta": {"options": ["yes", "no"]}})
    images = open_prepared(folder).image_folder(10**6)
    scores = option_scores(tiny, record, images, "exgra", 1024)
    assert len(scores) == 2 and all(np.isfinite(scores)) and scores[0] != scores[1]


def test_more_images_than_a_checkpoint_reads_are_refused_before_the_first_question(
    tiny: Bundle, tmp_path: Path
) -> None:
    save_bundle(tiny, tmp_path / "model")
    engine = CheckpointEngine(EngineOptions(model=str(tmp_path / "model")))
    engine.begin(RECORDS)
    many = talk("two", image=["0.png"] * (tiny.context_length // tiny.num_image_tokens))
    with pytest.raises(DataError, match=r"Record 'several/test/two' has \d+ images, which are"):
        engine.begin([*RECORDS, many])
    assert "bundle" not in vars(engine), "no weights were needed to know"


def shown_in(body: dict[str, Any]) -> list[Any]:
    """The parts of a request: texts, and pixels of images."""
    (message,) = body["messages"]
    return [
        part["text"] if part["type"] == "text" else pixels(part["image_url"]["url"])
        for part in message["content"]
    ]


def pixels(url: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).tobytes()


def test_a_service_is_sent_all_images_in_order(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "served"
    with ChatServer(lambda body: "left") as server:
        done = CliRunner().invoke(
            app,
            f"evaluate vqa m --data {folder} --out {run} --engine openai --base-url {server.url}",
        )
        assert done.exit_code == 0, (done.output, done.exception)
    images = open_prepared(folder).image_folder(10**6)
    sent = [shown_in(body) for body in server.bodies]
    assert len(sent) == len(RECORDS)
    a, b, c, d = (images.open(f"{n}.png").tobytes() for n in (3, 4, 5, 6))
    assert [a, b, c, d, "Which is the liver?"] in sent
    one, two, six, seven = (images.open(f"{n}.png").tobytes() for n in (1, 2, 6, 7))
    assert [one, two, "Which changed?"] in sent
    assert ["Compare ", two, " with ", one, ": is one older?"] in sent
    assert [six, seven, "\nWhich is larger?"] in sent
    assert ["In ", seven, ", which lung?"] in sent
    assert ["Is a heart an organ?"] in sent
    assert [images.open("0.png").tobytes(), "\nWhat is this?"] in sent
    page = report_of(run)
    assert page.count("<img") >= 1 + 2 + 4 + 2 + 1 + 2 + 1
    assert "Compare [image 1] with [image 2]: is one older?" in page


def report_of(run: Path) -> str:
    done = CliRunner().invoke(app, ["evaluate", "report", str(run)])
    assert done.exit_code == 0, (done.output, done.exception)
    return (run / "report.html").read_text(encoding="utf-8")


def test_what_is_kept_of_a_question_has_its_placeholders() -> None:
    assert shown_question(talk("in a sentence")) == "Compare <image> with <image>: is one older?"
    assert shown_question(talk("four")) == "Which is the liver?"
    record = talk("in a sentence").model_copy(update={"meta": {"options": ["yes", "no"]}})
    parts = message_parts(shown_question(record), [Image.new("RGB", (2, 2))] * 2)
    assert parts[-1]["text"] == ': is one older? (Answer with either "yes" or "no").'
    asked = asked_with_options(record)
    assert asked.question.startswith("Compare <image> with <image>: is one older?Here are 2")


@pytest.mark.parametrize("kind", ["blank", "noise"])
def test_every_image_of_a_record_is_blinded(folder: Path, kind: Any) -> None:
    images = open_prepared(folder).image_folder(10**6)
    records, blind = blinded(kind, RECORDS, images)
    assert records == RECORDS
    for name in talk("four").images:
        seen, unseen = images.open(name), blind.open(name)
        assert seen.size == unseen.size and seen.tobytes() != unseen.tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_exchanged_images_are_none_of_the_records_own(seed: int) -> None:
    for before, after in zip(RECORDS, shuffled_records(RECORDS, seed), strict=True):
        assert len(after.images) == len(before.images)
        assert not set(after.images) & set(before.images)
        if len(before.images) <= 4:
            assert len(set(after.images)) == len(before.images)
        assert Record.model_validate(after.to_json()) == after


def test_an_image_shown_twice_is_exchanged_for_one_shown_twice() -> None:
    twice = talk("two", image=["1.png", "1.png"])
    (found, _) = shuffled_records([twice, talk("one")])
    assert found.images == ["0.png", "0.png"]
    few = [talk("two"), talk("one")]
    assert shuffled_records(few)[0].images == ["0.png", "0.png"]
    with pytest.raises(DataError, match="shows all 2 images there are"):
        shuffled_records([talk("two"), talk("in a sentence")])


def test_sides_of_several_images_are_mirrored_too() -> None:
    named = [each.id.rpartition("/")[2] for each in sided_records(RECORDS)]
    assert named == ["one", "two", "one in a sentence", "at the beginning"]


def test_items_that_share_an_image_are_drawn_together() -> None:
    questions = [question_of(record) for record in RECORDS]
    codes = dict(zip(TALKS, cluster_codes([each.cluster for each in questions]), strict=True))
    assert codes["two"] == codes["in a sentence"]
    # 6 is in "four", 6 and 7 in "at the beginning", 7 in "one in a sentence".
    assert codes["four"] == codes["at the beginning"] == codes["one in a sentence"]
    assert len(set(codes.values())) == 4 and codes["one"] == codes["over turns"]
    chain = ["a\nb", "x", "c\nd", "b\nc", "question 7", "d"]
    assert cluster_codes(chain).tolist() == [0, 1, 0, 0, 2, 0]
    assert cluster_codes(["b", "a", "b"]).tolist() == [0, 1, 0]


def test_leaks_are_found_by_any_image() -> None:
    test = [question_of(talk("two")), question_of(talk("one"))]
    train = [question_of(talk("in a sentence"))]
    assert vqa.find_leaks(train, test)["image"] == [True, False]


def test_a_card_shows_every_image_and_says_which_is_broken(folder: Path, tmp_path: Path) -> None:
    images = open_prepared(folder).image_folder(10**6)
    judged = (1.0, "right", "open")
    card = make_card(question_of(talk("four")), "last", judged, images)
    assert len(card.images) == 4 and len(set(card.images)) == 4 and not card.image_problem
    template = template_environment(escape=True).from_string(
        '{% from "report.html.j2" import cards %}{{ cards(items) }}'
    )
    html = template.render(items=[card])
    assert re.findall(r'alt="Image (\d) of the question below"', html) == ["1", "2", "3", "4"]
    one = make_card(question_of(talk("one")), "left", judged, images)
    assert 'alt="Image of the question below"' in template.render(items=[one])
    gone = make_card(question_of(talk("two", image=["1.png", "gone.png"])), "a", judged, images)
    assert not gone.images and "gone.png" in gone.image_problem


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12])
def test_a_node_draws_every_image_inside_its_box(count: int) -> None:
    pair = Matched(0, 1, [(0, 1)], [(1, 0)], [1, -1], [[1.0, 0.0], [0.0, 1.0]])
    records = [talk("four"), talk("one")]
    svg = ET.fromstring(pair_svg(pair, records, [["x"] * count, ["y"]], "title"))
    drawn = [each for each in svg.iter() if each.tag == "image"]
    assert len(drawn) == count + 1
    boxes = [each for each in svg.iter() if (each.get("class") or "").startswith("node")]
    left, top, wide, high = (float(boxes[0].get(k) or 0) for k in ("x", "y", "width", "height"))
    places = set()
    for each in drawn[:count]:
        x, y, side = (float(each.get(k) or 0) for k in ("x", "y", "width"))
        assert left + 20 < x and x + side <= left + wide - 20
        assert top <= y + 0.01 and y + side <= top + high + 0.01
        places.add((x, y))
    assert len(places) == count and side > 10
    words = [each.text for each in svg.iter() if each.get("class") == "words"]
    assert words == [("matched with 2" if count == 1 else "→ 2"), "no partner"]


def test_a_url_holds_pixels_alone() -> None:
    picture = Image.new("RGB", (3, 2), "red")
    picture.info["comment"] = "Anna"
    assert pixels(data_url(picture)) == picture.tobytes()
