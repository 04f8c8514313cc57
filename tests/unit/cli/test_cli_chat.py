import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import exgra_med
from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError, DataError
from exgra_med.model.assistant import Assistant, Conversation
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.model.generate import AnswerChunk

DATA = Path(__file__).parents[2] / "golden" / "data" / "model"
PICTURE = DATA / "images" / "square.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chat") / "native"
    import_checkpoint(str(DATA / "checkpoint_dci"), str(DATA / "clip_tiny"), out)
    return out


@pytest.fixture(scope="module")
def assistant(folder: Path) -> Assistant:
    return exgra_med.load(folder)


def chat(*arguments: object, typed: str = "") -> str:
    result = CliRunner().invoke(
        app, ["chat", *map(str, arguments)], input=typed, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_three_lines_of_python(assistant: Assistant) -> None:
    answer = assistant.ask("What is shown?", PICTURE)
    assert answer == assistant.ask("What is shown?", [Image.open(PICTURE)])
    assert answer != assistant.ask("What is shown?")


def test_closed_questions_name_their_options(assistant: Assistant) -> None:
    by_hand = 'Is it? (Answer with either "Yes" or "No").'
    assert assistant.ask("Is it?", PICTURE, ["Yes", "No"]) == assistant.ask(by_hand, PICTURE)


def test_one_question(folder: Path, assistant: Assistant) -> None:
    told = chat(folder, PICTURE, "What is shown?")
    expected = assistant.ask("What is shown?", PICTURE)
    assert [c for c in told.strip() if c.isalnum()] == [c for c in expected if c.isalnum()]


@pytest.mark.slow
def test_a_dialogue_remembers(folder: Path, assistant: Assistant) -> None:
    conversation = Conversation(assistant.bundle, [Image.open(PICTURE)])
    first, second = conversation.ask("What is shown?"), conversation.ask("Where?")
    told = chat(folder, PICTURE, "--json", typed="What is shown?\nWhere?\n")
    answers = [json.loads(line) for line in told.splitlines()]
    assert [answer["text"] for answer in answers] == [first.text, second.text]
    assert answers[0]["finish_reason"] in ("stop", "length") and answers[0]["num_tokens"] > 0
    assert second.text != Conversation(assistant.bundle, conversation.images).ask("Where?").text


def test_streaming_remembers_like_asking(assistant: Assistant) -> None:
    one, two = Conversation(assistant.bundle), Conversation(assistant.bundle)
    assert "".join(one.stream("What is shown?")) == two.ask("What is shown?").text
    assert one.turns == two.turns


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    from exgra_med.terminal import printable

    assert printable("a\x1b[2J\nb") == "a\N{REPLACEMENT CHARACTER}[2J\nb"


def test_bad_input_is_a_sentence(folder: Path, assistant: Assistant) -> None:
    with pytest.raises(DataError, match="missing"):
        assistant.ask("What?", "no-such.png")
    with pytest.raises(CheckpointError, match="checkpoint import"):
        exgra_med.load(DATA / "checkpoint_dci")


def test_unknown_names_are_not_made_up() -> None:
    with pytest.raises(AttributeError):
        _ = exgra_med.nothing


@pytest.mark.slow
def test_the_template_can_be_chosen(folder: Path, assistant: Assistant, tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        return json.loads(chat(*arguments, "--json"))["text"]

    plain = assistant.ask("What is shown?", PICTURE)
    other = assistant.ask("What is shown?", PICTURE, template="original-multimodal")
    assert other != plain
    chosen = ["--template", "original-multimodal"]
    assert told(folder, PICTURE, "What is shown?", *chosen) == other
    # A checkpoint of training carries its recipe, and with it the template.
    trained = shutil.copytree(folder, tmp_path / "trained")
    (trained / "recipe.yaml").write_text("text: {template: original-multimodal}", "utf-8")
    assert told(trained, PICTURE, "What is shown?") == other
    with pytest.raises(DataError, match="original-simple"):
        chat(folder, PICTURE, "What?", "--template", "simple")


def test_several_pictures_are_given_in_order(
    folder: Path, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exgra_med.model.assistant.MAX_NEW_TOKENS", 6)
    pictures = sorted((DATA / "images").glob("*.png"))[:2]
    given = [option for picture in pictures for option in ("--image", picture)]
    question = "Is <image> older than <image>?"
    told = json.loads(chat(folder, *given, question, "--json"))
    assert told["question"] == question
    assert told["text"] == assistant.ask(question, pictures)
    dialogue = chat(folder, *given, "--json", typed="Which?\nWhy?\n").splitlines()
    conversation = Conversation(assistant.bundle, [Image.open(picture) for picture in pictures])
    expected = [conversation.ask("Which?").text, conversation.ask("Why?").text]
    assert [json.loads(line)["text"] for line in dialogue] == expected
    one = json.loads(chat(folder, "--image", PICTURE, "What is shown?", "--json"))
    assert one["text"] == assistant.ask("What is shown?", PICTURE)


@pytest.mark.parametrize("arguments", [[PICTURE, "--image", PICTURE], [PICTURE, "What?"]])
def test_pictures_given_in_two_ways_have_no_order(folder: Path, arguments: list[object]) -> None:
    extra = [] if "--image" in arguments else ["--image", PICTURE]
    with pytest.raises(DataError, match="order of the pictures is not clear"):
        chat(folder, *arguments, *extra)


def test_placeholders_that_do_not_fit_are_a_sentence(folder: Path) -> None:
    with pytest.raises(DataError, match=r"<image> 2 times for 1 image; give one for each"):
        chat(folder, PICTURE, "Is <image> older than <image>?")


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["Ri", "ght."], ["Ri", "ght."]),
        (["<think>Left?", "</think>", "Right", "."], ["Right", "."]),
        # Nothing says that it is a thought before it is closed.
        (["Left? ", "No.</think>", "Right."], ["Left? ", "\n", "Right."]),
        (["<think>Left?"], []),
    ],
)
def test_thoughts_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, assistant: Assistant, pieces: list[str], shown: list[str]
) -> None:
    chunks = [AnswerChunk(piece, 1, None) for piece in pieces]
    monkeypatch.setattr("exgra_med.model.assistant.stream", lambda *_: iter(chunks))
    conversation = Conversation(assistant.bundle)
    assert list(conversation.stream("Which side?")) == shown
    said = "Right." if shown else "-"
    assert [turn.text for turn in conversation.turns] == ["Which side?", said]
