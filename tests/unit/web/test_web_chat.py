"""A conversation with models that are made up: turns, two models, stop, errors, limits."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn
from exgra_med.errors import DataError, ServiceError
from exgra_med.evaluation.engines import data_url
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.request import Sampling
from exgra_med.model import bundle as model_bundle
from exgra_med.model import small_model
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import generate
from exgra_med.model.small_model import CARD, PACKAGED
from exgra_med.web import chat_view
from exgra_med.web.chat import ChatLog, ChatService, Dialogue
from exgra_med.web.chat_models import (
    ChatModel,
    LocalChatModel,
    RunModels,
    ServedChatModel,
    TextChunk,
    display_name,
    is_looked_at,
    messages,
    number_equal_names,
    open_chat_model,
)
from exgra_med.web.examples import examples_for
from exgra_med.web.limits import Limits
from exgra_med.web.votes import Vote, VoteBook

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x.png>![a](http://evil.example/)"
SECRET = "the words of a visitor"
SAMPLING = Sampling(max_tokens=8, temperature=0.0, top_p=1.0, seed=0)


class Parrot(ChatModel):
    """Says the given words; remembers what it was asked."""

    kind, host = "", ""

    def __init__(self, name: str, *words: str, fault: Exception | None = None) -> None:
        self.name, self.words, self.fault = name, words, fault
        self.heard: list[tuple[int, list[str]]] = []
        self.left = False

    def answer(
        self, images: Sequence[Image.Image], turns: Sequence[Turn], sampling: Sampling
    ) -> Iterator[TextChunk]:
        self.heard.append((len(images), [turn.text for turn in turns]))
        try:
            for number, word in enumerate(self.words, start=1):
                yield TextChunk(word, number, None)
            if self.fault:
                raise self.fault
            yield TextChunk("", len(self.words), "stop")
        finally:
            self.left = True


def ask(
    chat: ChatService, dialogue: Dialogue, question: str, client: str = "a", **more: Any
) -> None:
    names = more.pop("names", [model.name for model in chat.models])
    for _ in chat.ask(dialogue, question, names, more.pop("sampling", SAMPLING), client, **more):
        pass


def test_each_model_hears_its_own_answers_when_asked_to() -> None:
    one, two = Parrot("one", "left", " lung"), Parrot("two", "right")
    chat, dialogue = ChatService([one, two], Limits()), Dialogue()
    dialogue.pictures = chat.pictures.put([Image.new("RGB", (4, 4))])
    ask(chat, dialogue, "Where?", remember=True)
    ask(chat, dialogue, "Sure?", remember=True)
    assert one.heard == [(1, ["Where?"]), (1, ["Where?", "left lung", "Sure?"])]
    assert two.heard[1] == (1, ["Where?", "right", "Sure?"])
    answer = dialogue.exchanges[1].answers
    assert [(each.model, each.text, each.ended) for each in answer] == [
        ("one", "left lung", "stop"),
        ("two", "right", "stop"),
    ]
    assert answer[0].num_tokens == 2 and answer[0].first_seconds is not None


def test_thoughts_are_neither_shown_nor_told_to_the_model_again() -> None:
    parrot = Parrot("a", "<think>Left?", " No.</think>", "Right.")
    late = Parrot("b", "Left? No.", "</think>", "Right.")
    lost = Parrot("c", "<think>Left?")
    chat, dialogue = ChatService([parrot, late, lost], Limits()), Dialogue()
    seen = []
    for _ in chat.ask(dialogue, "Which side?", ["a", "b", "c"], SAMPLING, "x"):
        seen.append(dialogue.exchanges[0].answers[0].text)
    assert set(seen) <= {"", "Right."}
    first, second, third = dialogue.exchanges[0].answers
    assert first.text == second.text == "Right." and third.text == ""
    assert third.written == "<think>Left?"
    html = chat_view.conversation_html(dialogue)
    assert "Left?" not in html and "thoughts, and no answer" in html
    ask(chat, dialogue, "Sure?", remember=True)
    for model in (parrot, late):
        assert model.heard[1][1] == ["Which side?", "Right.", "Sure?"]
    assert lost.heard[1][1] == ["Which side?", "-", "Sure?"]


def test_only_chosen_models_are_asked() -> None:
    one, two = Parrot("one", "a"), Parrot("two", "b")
    chat, dialogue = ChatService([one, two], Limits()), Dialogue()
    ask(chat, dialogue, "Where?", names=["two"])
    ask(chat, dialogue, "And?", remember=True)
    assert one.heard == [(0, ["And?"])]
    assert two.heard[1] == (0, ["Where?", "b", "And?"])


def test_stop_ends_the_answer_and_keeps_what_there_is() -> None:
    parrot = Parrot("one", *"abcdefgh")
    chat, dialogue = ChatService([parrot], Limits()), Dialogue()
    for _ in chat.ask(dialogue, "Where?", ["one"], SAMPLING, "a"):
        dialogue.stop.set()
    (answer,) = dialogue.exchanges[0].answers
    assert answer.ended == "stopped" and answer.text in ("a", "ab") and parrot.left
    ask(chat, dialogue, "Go on?")
    assert dialogue.exchanges[1].answers[0].ended == "stop"


def test_leaving_ends_the_answer_too() -> None:
    parrot = Parrot("one", *"abcdefgh")
    chat, dialogue = ChatService([parrot], Limits()), Dialogue()
    steps = chat.ask(dialogue, "Where?", ["one"], SAMPLING, "a")
    next(steps)
    steps.close()
    assert dialogue.exchanges[0].answers[0].ended == "stopped" and parrot.left


def test_one_model_may_fail_and_the_other_answers(capsys: pytest.CaptureFixture[str]) -> None:
    bad = Parrot("bad", "half", fault=RuntimeError(SECRET))
    gone = Parrot("gone", fault=ServiceError("The model at host gave no whole answer."))
    chat, dialogue = ChatService([bad, gone], Limits()), Dialogue()
    ask(chat, dialogue, SECRET)
    one, two = dialogue.exchanges[0].answers
    assert one.ended == "failed" and one.problem == "The model failed (RuntimeError)."
    assert two.problem.startswith("The model at host")
    told = capsys.readouterr()
    assert "RuntimeError at test_web_chat.py" in told.err
    assert SECRET not in told.err + told.out
    ask(chat, dialogue, "Again?", remember=True)
    assert bad.heard[1] == (0, ["Again?"]), "a failed answer is no turn"


@pytest.mark.parametrize(
    ("question", "more", "message"),
    [
        ("  ", {}, "no question"),
        ("x" * 4001, {}, "4001 characters, more than 4000"),
        ("a", {"names": []}, "No model"),
        ("a", {"names": ["nobody"]}, "No model"),
        ("a", {"sampling": Sampling(max_tokens=0)}, "1 to 512 tokens"),
        ("a", {"sampling": Sampling(max_tokens=513)}, "1 to 512 tokens"),
        ("a", {"sampling": Sampling(8, temperature=float("nan"))}, "Temperature"),
        ("a", {"sampling": Sampling(8, temperature=3.0)}, "Temperature"),
        ("a", {"sampling": Sampling(8, top_p=-1.0)}, "Temperature"),
        ("a", {"sampling": Sampling(8, seed=2**40)}, "Temperature"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_changes(
    question: str, more: dict[str, Any], message: str
) -> None:
    chat, dialogue = ChatService([Parrot("one", "a")], Limits()), Dialogue()
    with pytest.raises(DataError, match=message):
        ask(chat, dialogue, question, **more)
    assert not dialogue.exchanges and not chat.models[0].heard


def test_a_conversation_and_an_address_have_limits() -> None:
    chat = ChatService([Parrot("one", "a")], Limits(max_turns=2, questions_per_minute=3))
    dialogue = Dialogue()
    ask(chat, dialogue, "1")
    ask(chat, dialogue, "2")
    with pytest.raises(DataError, match="has 2 questions"):
        ask(chat, dialogue, "3")
    ask(chat, Dialogue(), "3")
    with pytest.raises(DataError, match="asked 3 questions within a minute"):
        ask(chat, Dialogue(), "4")
    ask(chat, Dialogue(), "4", client="b")


def test_a_slow_answer_is_cut() -> None:
    chat, dialogue = (
        ChatService([Parrot("one", *"abc")], Limits(max_seconds_per_answer=0)),
        Dialogue(),
    )
    ask(chat, dialogue, "Where?")
    assert dialogue.exchanges[0].answers[0].ended == "time"


def test_nothing_is_written_down_unless_asked_for(tmp_path: Path) -> None:
    ask(ChatService([Parrot("one", "a")], Limits()), Dialogue(), SECRET)
    assert not list(tmp_path.iterdir())
    chat = ChatService([Parrot("one", "a")], Limits(), ChatLog(tmp_path, 3))
    ask(chat, Dialogue(), SECRET)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == {
        "question": SECRET,
        "answers": [{"model": "one", "text": "a", "ended": "stop"}],
    }


def test_whatever_anyone_says_is_text() -> None:
    chat, dialogue = ChatService([Parrot(HOSTILE, HOSTILE)], Limits()), Dialogue()
    ask(chat, dialogue, HOSTILE)
    dialogue.exchanges[0].answers[0].problem = HOSTILE
    html = chat_view.conversation_html(dialogue) + chat_view.problem_html(HOSTILE)
    assert "<script" not in html and "<img" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5


def test_the_picture_is_described_and_inline() -> None:
    html = chat_view.pictures_html([Image.new("RGB", (30, 20))])
    assert 'alt="The picture you gave, 30 × 20 pixels"' in html
    assert 'src="data:image/jpeg;base64,' in html and "http" not in html


def test_several_pictures_are_numbered_in_their_order() -> None:
    html = chat_view.pictures_html([Image.new("RGB", (30, 20 + n)) for n in range(3)])
    for number in (1, 2, 3):
        assert f'alt="Picture {number} of 3, 30 × {19 + number} pixels"' in html
    assert html.count("<img") == 3 and "&lt;image&gt;</code> 3 times" in html


def test_every_model_is_given_all_pictures_in_order() -> None:
    pictures = [Image.new("RGB", (4 + n, 4)) for n in range(4)]
    parrot = Parrot("one", "yes")
    chat, dialogue = ChatService([parrot], Limits()), Dialogue()
    dialogue.pictures = chat.pictures.put(pictures)
    ask(chat, dialogue, "Is <image> <image> <image> older than <image>?")
    ask(chat, dialogue, "Sure?")
    assert [count for count, _ in parrot.heard] == [4, 4]


@pytest.mark.parametrize("question", ["Is <image> old?", "<image> <image> <image>"])
def test_placeholders_that_do_not_fit_the_pictures_are_a_sentence(
    bundle: Bundle, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = served(monkeypatch, ("a", "stop"))
    local, away = LocalChatModel("tiny", lambda: bundle), ServedChatModel("toy", LOCAL, Limits())
    chat, dialogue = ChatService([local, away], Limits()), Dialogue()
    dialogue.pictures = chat.pictures.put([Image.new("RGB", (9, 9))] * 2)
    ask(chat, dialogue, question)
    for answer in dialogue.exchanges[0].answers:
        assert answer.ended == "failed" and "for 2 images; give one for each" in answer.problem
    assert not requests


def test_examples_come_with_the_package() -> None:
    examples = examples_for([Parrot("any")])
    assert len({record.images[0] for record in examples.records}) == 4
    html = examples.html(10**7)
    assert html.count("<button") == 4 and "http" not in html
    assert "VQA-RAD, CC0" in html and "SLAKE" not in html


def test_the_small_model_is_shown_what_it_was_made_for() -> None:
    small = Parrot("small")
    small.kind = "small"
    examples = examples_for([Parrot("another"), small])
    assert {record.meta["modality"] for record in examples.records} == {"X-Ray", "MRI"}
    assert len({record.images[0] for record in examples.records}) == 4
    html = examples.html(10**7)
    assert html.count("<img") == html.count("SLAKE says: ") == 4 and "http" not in html
    assert html.count("small is known to fail here.") == 1
    assert "SLAKE 1.0 (Liu et al., ISBI 2021), CC BY 4.0" in html and "CC BY-SA 4.0" in html


def test_the_page_says_which_model_answers_and_what_it_can() -> None:
    small, toy = Parrot("small"), Parrot("<b>")
    small.kind, toy.kind = "small", "toy"
    html = chat_view.models_html([small, toy, Parrot("any")])
    assert html.count("<li>") == 3 and "<li><b>any</b> answers. </li>" in html
    assert "&lt;b&gt;</b> answers." in html and "toy model" in html and "random weights" in html
    assert "160M parameters" in html and "Research use only." in html
    # The figures are those of its card, of which each test has a line.
    card = (PACKAGED / CARD).read_text(encoding="utf-8")
    (slake,), (vqa_rad,) = (
        [line for line in card.splitlines() if line.startswith(f"| {test}")]
        for test in ("SLAKE, English test", "VQA-RAD, official test")
    )
    for score, line in (("71.2", slake), ("53.8", slake), ("38.8", vqa_rad), ("40.6", vqa_rad)):
        assert f"{score} %" in html and f"| {score} " in line


def test_a_local_model_answers_as_it_does_elsewhere(bundle: Bundle) -> None:
    picture = Image.new("RGB", (30, 20), "grey")
    turns = [Turn(role="user", text="What?")]
    prompt = encode_prompt(bundle.tokenizer, turns, "exgra", bundle.num_image_tokens, 1)
    expected = generate(bundle, [prompt], [[picture]], 20)[0]
    model = LocalChatModel("tiny", lambda: bundle)
    pieces = list(model.answer([picture], turns, Sampling(max_tokens=20, temperature=0.0)))
    assert "".join(piece.text for piece in pieces) == expected.text
    assert (pieces[-1].ended, pieces[-1].num_tokens) == (
        expected.finish_reason,
        expected.num_tokens,
    )


def test_a_conversation_longer_than_the_model_is_a_sentence(bundle: Bundle) -> None:
    turns = [Turn(role="user", text="word " * 5000)]
    with pytest.raises(DataError, match="longer than the"):
        next(iter(LocalChatModel("tiny", lambda: bundle).answer([], turns, SAMPLING)))


def served(monkeypatch: pytest.MonkeyPatch, *chunks: tuple[str, str | None]) -> list[Any]:
    requests: list[Any] = []

    def stream_reply(
        endpoint: Any, request: Any, timeout_seconds: float, names: Any
    ) -> Iterator[Any]:
        requests.append(request)
        yield from chunks

    monkeypatch.setattr("exgra_med.llm.openai_transport.stream_reply", stream_reply)
    return requests


LOCAL = Endpoint("http://127.0.0.1:1/v1", "none")
AWAY = Endpoint("https://models.example/v1", "key")


def answered_by(model: ServedChatModel, *texts: str) -> tuple[str, str | None]:
    roles = ("user", "assistant")
    turns = [Turn(role=roles[n % 2], text=text) for n, text in enumerate(texts)]
    pieces = list(model.answer([Image.new("RGB", (3, 3))], turns, SAMPLING))
    return "".join(piece.text for piece in pieces), pieces[-1].ended


@pytest.mark.parametrize(
    ("chunks", "text", "ended"),
    [
        ([("a ", None), ("b", None), ("", "stop")], "a b", "stop"),
        ([("a #", None), ("##", None), ("more", None)], "a", "stop"),
        ([("a ##", None), ("", "length")], "a", "length"),
        ([("a # b", None)], "a # b", "stop"),
        ([("x" * 50, None)] * 9, "x" * 100, "length"),
        ([("<think>### 1</think>b", None), ("###", None)], "<think>### 1</think>b", "stop"),
    ],
)
def test_the_end_marker_of_a_served_model_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, chunks: Any, text: str, ended: str
) -> None:
    served(monkeypatch, *chunks)
    model = ServedChatModel("toy", LOCAL, Limits(max_answer_characters=100))
    assert answered_by(model, "What?") == (text, ended)


def test_a_server_hears_the_whole_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = served(monkeypatch, ("a", "stop"))
    answered_by(ServedChatModel("toy", LOCAL, Limits()), "What?", "This.", "Sure?")
    first, second, third = requests[0].messages
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert first["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert (second["role"], second["content"], third["content"]) == ("assistant", "This.", "Sure?")
    assert messages([], [Turn(role="user", text="a")]) == [{"role": "user", "content": "a"}]


def test_a_server_sees_pictures_where_the_questions_place_them() -> None:
    pictures = [Image.new("RGB", (size, 1)) for size in (2, 3, 4)]
    urls = [data_url(picture) for picture in pictures]

    def shown(*texts: str) -> list[Any]:
        turns = [Turn(role=("user", "assistant")[n % 2], text=t) for n, t in enumerate(texts)]
        return [
            content
            if isinstance(content := each["content"], str)
            else [
                p["text"] if p["type"] == "text" else urls.index(p["image_url"]["url"])
                for p in content
            ]
            for each in messages(pictures, turns)
        ]

    assert shown("Which?") == [[0, 1, 2, "Which?"]]
    assert shown("Is <image> <image> or <image> old?") == [["Is ", 0, 1, " or ", 2, " old?"]]
    # A line break in front of the text keeps an export from moving the image behind it.
    assert shown("<image> shows what?", "a", "Then <image>", "b", "<image>?") == [
        [0, "\nshows what?"],
        "a",
        ["Then ", 1],
        "b",
        [2, "\n?"],
    ]
    assert shown("Hello", "a", "<image><image><image>") == ["Hello", "a", [0, 1, 2]]


def test_what_names_a_patient_does_not_leave_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = served(monkeypatch, ("a", "stop"))
    question = "Patient name: Anna Secret. Is there a mass?"
    with pytest.raises(DataError, match=r"identify a patient \(name\)") as caught:
        answered_by(ServedChatModel("toy", AWAY, Limits()), question)
    assert not requests and "Anna" not in str(caught.value)
    assert answered_by(ServedChatModel("toy", LOCAL, Limits()), question) == ("a", "stop")


def test_a_server_elsewhere_must_be_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    source = "toy@https://models.example/v1"
    with pytest.raises(ServiceError, match="would leave this machine"):
        open_chat_model(source, "cpu", "exgra", False, Limits())
    assert open_chat_model(source, "cpu", "exgra", True, Limits()).host == "models.example"
    local = open_chat_model("toy@http://127.0.0.1:8000/v1", "cpu", "exgra", False, Limits())
    assert (local.name, local.host) == ("toy", "")
    with pytest.raises(ServiceError, match="No model is named"):
        open_chat_model("@http://127.0.0.1:8000/v1", "cpu", "exgra", False, Limits())


def test_the_packaged_model_and_toys_are_known(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(small_model, "PACKAGED", tmp_path / "packaged")
    small_model.PACKAGED.mkdir()
    (small_model.PACKAGED / small_model.WEIGHTS).write_bytes(b"weights")
    # As it is once it was made: nothing is fetched.
    small_model._folder().mkdir(parents=True)
    monkeypatch.setattr(model_bundle, "load_bundle", lambda *_: bundle)
    own = {"text": {"template": "original-train"}}
    toy = own | {"model": {"architecture": {"connector": "none"}}}
    known = {"unknown": {}, "later": own | {"model": {"start": "toy"}}, "toy": toy}
    for name, recipe in known.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    opened = {
        name: open_chat_model(name, "cpu", None, False, Limits()) for name in ("small", *known)
    }
    assert [model.name for model in opened.values()] == list(opened)
    assert [model.kind for model in opened.values()] == ["small", "", "toy", "toy"]
    # Each is asked in the template that it was trained with.
    templates = [model.template for model in opened.values() if isinstance(model, LocalChatModel)]
    assert templates == ["exgra", "exgra", "original-train", "original-train"]
    with pytest.raises(DataError, match="no chat template 'none'"):
        open_chat_model("toy", "cpu", "none", False, Limits())


def test_names_are_short_and_differ(tmp_path: Path) -> None:
    inside = tmp_path / "demo" / "checkpoints" / "vqa" / "final"
    inside.mkdir(parents=True)
    assert display_name(inside) == "demo · vqa"
    assert display_name(tmp_path / "demo") == "demo"
    assert display_name("owner/model") == "owner/model"
    twins = [Parrot("a"), Parrot("a")]
    number_equal_names(twins)
    assert [twin.name for twin in twins] == ["a", "a (2)"]


def test_a_question_stands_alone_unless_the_conversation_is_kept() -> None:
    parrot = Parrot("one", "left")
    chat, dialogue = ChatService([parrot], Limits()), Dialogue()
    ask(chat, dialogue, "Where?")
    ask(chat, dialogue, "Sure?")
    ask(chat, dialogue, "And now?", remember=True)
    assert [heard for _, heard in parrot.heard] == [
        ["Where?"],
        ["Sure?"],
        ["Where?", "left", "Sure?", "left", "And now?"],
    ]


class Weighty(Parrot):
    """Has to be loaded; cannot be where there is a fault."""

    is_loaded = False

    def load(self) -> None:
        if self.fault:
            raise self.fault
        self.is_loaded = True

    def close(self) -> None:
        self.is_loaded = False


def test_only_models_that_are_asked_are_in_memory() -> None:
    models = [Weighty(name, "a") for name in "xyz"]
    chat, dialogue = ChatService(models, Limits()), Dialogue()
    told = []
    for _ in chat.ask(dialogue, "What?", ["x"], SAMPLING, "a"):
        told.append(chat_view.conversation_html(dialogue))
    assert "loading the model" in told[0] and "loading the model" not in told[-1]
    assert [model.is_loaded for model in models] == [True, False, False]
    ask(chat, dialogue, "What?", names=["z", "y"])
    assert [model.is_loaded for model in models] == [False, True, True]
    assert [each.model for each in dialogue.exchanges[1].answers] == ["z", "y"]


def test_a_model_that_cannot_be_loaded_is_a_sentence_without_a_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Weighty("broken", fault=DataError("/secret/folder has no weights."))
    chat, dialogue = ChatService([broken], Limits()), Dialogue()
    ask(chat, dialogue, SECRET)
    (answer,) = dialogue.exchanges[0].answers
    assert answer.ended == "failed" and "broken cannot be loaded." in answer.problem
    assert "/secret" not in answer.problem
    told = capsys.readouterr().err
    assert "/secret/folder has no weights." in told and SECRET not in told


def test_two_named_models_begin_together_and_of_a_menu_the_first() -> None:
    one, two, three = (Parrot(name) for name in "abc")
    assert [m.name for m in ChatService([one, two], Limits()).asked_first] == ["a", "b"]
    assert [m.name for m in ChatService([one, two, three], Limits()).asked_first] == ["a"]
    found = ChatService([], Limits(), None, lambda: [one, two])
    assert [m.name for m in found.asked_first] == ["a"]
    assert ChatService([], Limits()).asked_first == []
    with pytest.raises(DataError, match="no model here yet"):
        ask(ChatService([], Limits()), Dialogue(), "a", names=["a"])
    assert "No model answers here yet." in chat_view.models_html([])


def test_finished_runs_of_a_folder_are_models(tmp_path: Path) -> None:
    from exgra_med.recipe.load import load_recipe
    from exgra_med.recipe.run_folder import start_run

    root = tmp_path / "runs"
    recipe = load_recipe("debug/tiny", ()).recipe
    runs = {name: start_run(root / name, recipe, resume=False) for name in ("a", "b")}
    last = list(recipe.stages)[-1]
    opened: list[str] = []

    def open_model(source: str, name: str) -> ChatModel:
        opened.append(source)
        return Parrot(name)

    assert is_looked_at(str(root)) and is_looked_at(str(root / "a"))
    assert not is_looked_at(str(tmp_path / "nothing")) and not is_looked_at("small")
    assert not is_looked_at("toy@http://localhost:1/v1")
    found = RunModels([root], open_model)
    chat = ChatService([Parrot("given")], Limits(), None, found)
    assert [model.name for model in chat.models] == ["given"]
    runs["b"].final(last).mkdir(parents=True)
    chat.refresh()
    assert [model.name for model in chat.models] == ["given", "runs/b"]
    assert not is_looked_at(str(root / "b"))
    same = chat.models[1]
    chat.refresh()
    assert chat.models[1] is same and opened == [str(runs["b"].final(last))]


def voted(chat: ChatService, blind: bool = True) -> Dialogue:
    dialogue = Dialogue()
    ask(chat, dialogue, SECRET, blind=blind)
    return dialogue


def test_blind_answers_have_no_names_until_the_vote() -> None:
    chat = ChatService([Parrot("xylo", "left"), Parrot("yuzu", "right")], Limits())
    dialogue = Dialogue()
    told = []
    for _ in chat.ask(dialogue, "Where?", ["xylo", "yuzu"], SAMPLING, "a", blind=True):
        told.append(chat_view.conversation_html(dialogue))
    told.append(chat_view.conversation_html(dialogue))
    assert not any("xylo" in each or "yuzu" in each or " s ·" in each for each in told)
    assert "<h3>A</h3>" in told[-1] and "<h3>B</h3>" in told[-1]
    with pytest.raises(DataError, match="names are still hidden"):
        next(chat.look(dialogue, "a"))
    chat.vote(dialogue, 1)
    second = dialogue.exchanges[0].answers[1].model
    html = chat_view.conversation_html(dialogue)
    assert f"B: {second}" in html and f"Your vote: {second} is better." in html
    with pytest.raises(DataError, match="no two answers"):
        chat.vote(dialogue, 0)


def test_blind_answers_come_in_either_order() -> None:
    chat = ChatService([Parrot("x", "a"), Parrot("y", "b")], Limits(questions_per_minute=99))
    assert {voted(chat).exchanges[0].answers[0].model for _ in range(40)} == {"x", "y"}
    assert {voted(chat, False).exchanges[0].answers[0].model for _ in range(9)} == {"x"}


def test_names_are_said_where_there_is_nothing_to_vote_on() -> None:
    bad = Parrot("bad", fault=ServiceError("bad does not answer."))
    chat = ChatService([bad, Parrot("good", "a")], Limits())
    html = chat_view.conversation_html(voted(chat))
    assert ": bad" in html and ": good" in html and "bad does not answer." in html
    with pytest.raises(DataError, match="no two answers"):
        chat.vote(Dialogue(), None)


def test_votes_are_written_at_once_without_question_or_answer(tmp_path: Path) -> None:
    path = tmp_path / "votes" / "kept.jsonl"
    models = [Parrot("x", SECRET), Parrot("y", "b")]
    chat = ChatService(models, Limits(), votes=VoteBook(path))
    for better, blind in ((0, False), (0, False), (1, False), (None, False), (None, True)):
        chat.vote(voted(chat, blind), better)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["better"] for each in lines] == ["x", "x", "y", None, None]
    assert {tuple(each) for each in lines} == {("time", "models", "better", "blind")}
    assert SECRET not in path.read_text() and path.stat().st_mode & 0o077 == 0
    with path.open("a") as stream:
        stream.write('{"time": "2026-01')  # a kill
    again = VoteBook(path)
    again.add(Vote(("y", "x"), "x", False))
    for book in (again, VoteBook(path)):
        blind, seen = book.tallies({"x", "y"})
        assert (blind.blind, blind.wins, blind.num_equal, blind.share) == (True, (0, 0), 1, None)
        assert (seen.models, seen.wins, seen.num_equal) == (("x", "y"), (3, 1), 1)
    # Wilson's interval of 3 of 4, by its formula.
    z = 1.959964
    middle, half = (3 + z * z / 2) / (4 + z * z), z * (3 * 1 / 4 + z * z / 4) ** 0.5 / (4 + z * z)
    assert seen.interval == pytest.approx((100 * (middle - half), 100 * (middle + half)), abs=1e-3)
    html = chat_view.tallies_html([seen], True)
    assert "3 : 1" in html and "75<small>30 to 95</small>" in html
    assert VoteBook(path).tallies({"x"}) == []


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "mine", '{"models": 1}\n', '{"time": 1}\n'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(ServiceError, match=r"notes\.txt:1 is no vote"):
        VoteBook(path)
    assert path.read_text() == text


class Looking(Parrot):
    """Answers by one pixel of the picture."""

    def scorer(self, images: Any, turns: Any, answer: str) -> Any:
        assert (turns[-1].text, answer) == ("What?", "left")
        return lambda pictures: [
            -0.1 if each.getpixel((30, 10)) == (255, 255, 255) else -1.0 for each in pictures
        ]


def test_where_models_looked_is_drawn_on_the_picture() -> None:
    models = [Looking("sees", "left"), Parrot("served", "left"), Parrot("mute")]
    chat = ChatService(models, Limits())
    dialogue, picture = Dialogue(), Image.new("RGB", (43, 29), "white")
    with pytest.raises(DataError, match="no answer yet"):
        next(chat.look(dialogue, "a"))
    ask(chat, dialogue, "What?")
    with pytest.raises(DataError, match="about one picture"):
        next(chat.look(dialogue, "a"))
    dialogue.pictures = chat.pictures.put([picture])
    told = [chat_view.looked_html(looked, picture) for looked in chat.look(dialogue, "a")]
    assert "waiting" in told[0] and "<progress" in told[1] and "1 of 81 pictures" in told[1]
    html = told[-1]
    assert "row 3, column 6 lowers" in html and "from 90.5 to 36.8 %" in html
    lit = [part for part in html.split("<rect ")[1:] if 'fill-opacity="0.000"' not in part]
    assert len(lit) == 1 and "row 3, column 6: +53.7 points" in lit[0]
    assert html.count("<rect ") == 64 and "<progress" not in html
    assert "does not say how likely" in html and "mute gave no answer" in html
    assert "not that the model understands it" in html


def test_a_model_that_never_looks_is_said_to() -> None:
    class Blind(Parrot):
        def scorer(self, images: Any, turns: Any, answer: str) -> Any:
            return lambda pictures: [-0.5 for _ in pictures]

    chat, dialogue = ChatService([Blind("a", "left")], Limits()), Dialogue()
    picture = Image.new("RGB", (9, 9))
    dialogue.pictures = chat.pictures.put([picture])
    ask(chat, dialogue, "What?")
    *_, looked = chat.look(dialogue, "a")
    html = chat_view.looked_html(looked, picture)
    assert "Covering no part changes the answer’s likelihood by more than 0.1 points" in html


def test_a_map_can_be_stopped_and_takes_no_longer_than_an_answer() -> None:
    chat = ChatService([Looking("a", "left")], Limits(max_seconds_per_answer=0))
    dialogue = Dialogue(pictures=chat.pictures.put([Image.new("RGB", (43, 29), "white")]))
    chat.limits = Limits()
    ask(chat, dialogue, "What?")
    for looked in chat.look(dialogue, "a"):
        if looked[0].progress:
            dialogue.stop.set()
    assert looked[0].progress is not None and looked[0].progress.num_done == 1
    chat.limits = Limits(max_seconds_per_answer=0)
    *_, looked = chat.look(dialogue, "a")
    assert looked[0].progress is not None and looked[0].progress.num_done == 1
