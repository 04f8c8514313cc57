"""Several images of a record: placeholders and images fit, or the record is refused by name."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exgra_med.captions.output import original_item
from exgra_med.captions.question import pairs_of
from exgra_med.cli.main import app
from exgra_med.data.chat_template import (
    IMAGE_BLOCK,
    conversation_segments,
    images_by_turn,
    prompt_text,
    user_text,
)
from exgra_med.data.conversation import join_by_image
from exgra_med.data.derive import write_derived, write_split
from exgra_med.data.inspect.audit import audit
from exgra_med.data.inspect.check import check_prepared
from exgra_med.data.records import (
    Record,
    Turn,
    numbered_images,
    open_prepared,
    parse_record,
    read_records,
)
from exgra_med.errors import DataError
from exgra_med.evaluation.report.data_page import data_page
from several_images import TALKS, make_several, talk


def value(image: Any, *said: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[n % 2], "text": t} for n, t in enumerate(said)]
    return {"id": "a/1", "turns": turns} | ({"image": image} if image is not None else {}) | more


def text_of(record: Record) -> str:
    return "".join(segment.text for segment in conversation_segments(record, "exgra"))


@pytest.mark.parametrize(
    ("image", "said", "message"),
    [
        ("a.png", ["<image> <image>", "x"], "<image> 2 times for 1 image;"),
        (["a.png", "b.png"], ["What is in <image>?", "x"], "<image> 1 time for 2 images;"),
        (["a.png", "b.png", "c.png"], ["<image>", "x", "<image>", "x"], "2 times for 3 images;"),
        (None, ["What is <image>?", "x"], "<image> 1 time for 0 images;"),
        ([], ["<image>\nWhat?", "x"], "<image> 1 time for 0 images;"),
        ("a.png", ["What?", "It is <image>."], "an answer holds <image>"),
        ("a.png", ["What is <image>?", "That.", "Why?", "See <image>."], "an answer holds <image>"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_line_and_record(
    image: Any, said: list[str], message: str, tmp_path: Path
) -> None:
    import json

    path = tmp_path / "train.jsonl"
    good = value("a.png", "What?", "x") | {"id": "a/0"}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(value(image, *said))}\n")
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert caught.value.message.startswith(f"{path}:2: record 'a/1': ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "more", [{"extended": ["See <image>."]}, {"meta": {"options": ["<image>", "none"]}}]
)
def test_neither_extended_answers_nor_options_hold_images(more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="holds <image>"):
        parse_record(value("a.png", "What?", "x", **more), "here")


def test_without_placeholders_all_images_stand_behind_the_first_question() -> None:
    assert f"Human: Which changed?\n{IMAGE_BLOCK}\n{IMAGE_BLOCK}\n###" in text_of(talk("two"))
    assert text_of(talk("four")).count(IMAGE_BLOCK) == 4
    assert IMAGE_BLOCK not in text_of(talk("none"))
    one = text_of(talk("one"))
    assert f"Human: Is the left lung clear?\n{IMAGE_BLOCK}\n### Assistant: left\n###" in one


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("in a sentence", [f"Compare {IMAGE_BLOCK} with {IMAGE_BLOCK}: is one older?"]),
        ("one in a sentence", [f"Human: In {IMAGE_BLOCK}, which lung?"]),
        ("at the beginning", [f"Human: {IMAGE_BLOCK}{IMAGE_BLOCK}\nWhich is larger?"]),
        (
            "over turns",
            [
                f"Human: {IMAGE_BLOCK} What is this?\n### Assistant: a lung",
                f"Human: Is it clear?\n### Assistant: no\n### Human: And {IMAGE_BLOCK} or "
                f"{IMAGE_BLOCK}?\n###",
            ],
        ),
    ],
)
def test_each_image_stands_where_its_placeholder_stands(name: str, parts: list[str]) -> None:
    record = talk(name)
    text = text_of(record)
    assert all(part in text for part in parts)
    assert text.count(IMAGE_BLOCK) == len(record.images) and "<image>" not in text
    supervised = "".join(s.text for s in conversation_segments(record, "exgra") if s.supervised)
    assert "<im" not in supervised


def test_options_follow_the_question_and_not_its_images() -> None:
    asked = user_text("Is <image> or <image> older?", options=["first", "second"])
    assert asked == (
        f'Is {IMAGE_BLOCK} or {IMAGE_BLOCK} older? (Answer with either "first" or "second").'
    )


@pytest.mark.parametrize("text", ["<im<image>age>", "<image<im_patch>>", "<<image>image>", "<im_"])
def test_a_question_holds_as_many_images_as_placeholders(text: str) -> None:
    count = text.count("<image>")
    assert user_text(text).count("<im_patch>") == count
    assert "<image>" not in user_text(text)


def test_a_prompt_knows_the_images_of_its_turns() -> None:
    record = talk("over turns")
    text = text_of(record)
    for num_turns, num_images in ((1, 1), (3, 1), (5, 3)):
        assert text.startswith(prompt_text(record.turns[:num_turns], "exgra", num_images))
    assert images_by_turn(record.turns, 3) == [1, 0, 0, 0, 2, 0]
    assert images_by_turn(talk("four").turns, 4) == [4, 0]
    with pytest.raises(DataError, match=r"^The questions hold <image> 1 time for 2 images; give"):
        prompt_text(record.turns[:1], "exgra", 2)


def test_the_first_question_has_its_own_images() -> None:
    record = talk("over turns")
    assert record.question_images == ["0.png"] and len(record.images) == 3
    first = record.first_exchange()
    assert Record.model_validate(first.to_json()).images == ["0.png"]
    later = Record.model_validate(value("a.png", "Hello", "Hi", "And <image>?", "x"))
    assert later.question_images == [] and later.images == ["a.png"]
    assert talk("four").question_images == talk("four").images


def test_records_that_show_the_same_are_one_group() -> None:
    assert talk("two").image_group == talk("in a sentence").image_group
    assert talk("one").image_group == "0.png" and talk("none").image_group == talk("none").id


def test_records_that_place_their_images_are_not_joined() -> None:
    turns = [Turn(role="user", text="Which?"), Turn(role="assistant", text="left")]
    plain = [Record(id=f"p{n}", image=["2.png", "1.png"], turns=turns) for n in range(2)]
    joined = join_by_image([plain[0], talk("in a sentence"), plain[1]], 5)
    assert [record.id for record in joined] == ["p0+1", talk("in a sentence").id]
    assert len(joined[0].turns) == 4 and joined[0].images == ["2.png", "1.png"]


def test_models_that_get_words_alone_read_numbers() -> None:
    assert [question for question, _ in pairs_of(talk("over turns"))] == [
        "[image 1] What is this?",
        "Is it clear?",
        "And [image 2] or [image 3]?",
    ]
    assert numbered_images("What?") == "What?"


def test_the_originals_layout_has_a_placeholder_for_every_image() -> None:
    said = [m["value"] for m in original_item(talk("four"))["conversations"]]
    assert said[0] == "<image>\n" * 4 + "Which is the liver?"
    assert (
        original_item(talk("over turns"))["conversations"][4]["value"] == "And <image> or <image>?"
    )
    assert "<image>" not in str(original_item(talk("none")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_several(tmp_path_factory.mktemp("several") / "data")


@pytest.mark.parametrize("name", ["none", "one", "four", "over turns"])
def test_data_show_names_every_image(folder: Path, name: str) -> None:
    found = CliRunner().invoke(app, ["data", "show", str(folder), f"several/test/{name}"])
    assert found.exit_code == 0, found.output
    for image in talk(name).images:
        assert f"{image} (" in found.stdout
    assert ("And <im_start>" in found.stdout) == (name == "over turns")


def test_a_folder_is_checked_counted_and_drawn(folder: Path) -> None:
    prepared = open_prepared(folder)
    report = check_prepared(prepared)
    assert not report.faults and report.facts["images"] == 8
    page = data_page(prepared)
    # Each group of images is drawn once, with the questions of all three splits; texts stand apart.
    drawn = {talk(name).image_group: talk(name).images for name in TALKS}
    assert page.count('<article class="card">') == len(drawn) - 1 + 3
    assert page.count("<img") == sum(map(len, drawn.values()))
    assert page.count("<li data-split=") == 3 * len(TALKS)


def test_records_that_share_an_image_stay_in_one_split(tmp_path: Path) -> None:
    pairs = [
        talk("two", "train", id=f"a/train/pair-{n}", image=[f"{n}.png", f"{n + 1}.png"])
        for n in (5, 6)
    ]
    folder = make_several(tmp_path / "data", *pairs)
    prepared = open_prepared(folder)
    with pytest.raises(DataError, match="none: has no image, so it has no split by image"):
        write_split(prepared, 0.2, 0.3, 0, tmp_path / "refused")
    keep = {
        "train": [talk(name, "train") for name in ("one", "four", "in a sentence")] + pairs,
        "test": [talk(name) for name in ("two", "one in a sentence")],
    }
    own = write_derived(prepared, keep, {"made_by": "test"}, tmp_path / "own")
    # "four" and the pairs are one group with 7.png, "two" and "in a sentence" another.
    for seed in range(6):
        made = write_split(own, 0.0, 0.4, seed, tmp_path / f"split-{seed}")
        shown = {
            split: {image for record in made.records(split) for image in record.images}
            for split in ("train", "test")
        }
        assert shown["train"] and not shown["train"] & shown["test"]
        assert sum(made.manifest["counts"].values()) == 7


def test_images_that_link_everything_cannot_be_split(tmp_path: Path) -> None:
    prepared = open_prepared(make_several(tmp_path / "data"))
    linked = [talk("two", id=f"a/test/{n}", image=["0.png", f"{n}.png"]) for n in range(1, 7)]
    one = write_derived(prepared, {"test": linked}, {"made_by": "test"}, tmp_path / "one")
    with pytest.raises(
        DataError, match="no record is left for test: images link the 6 records to 1 gr"
    ):
        write_split(one, 0.0, 0.9, 0, tmp_path / "out")


def test_an_audit_finds_every_shared_image() -> None:
    train, test = [talk("over turns", "train")], [talk("two"), talk("four"), talk("one")]
    found = audit(train, test)
    assert (found.test_images, found.test_images_in_train) == (7, 3)
