"""The page in Gradio: its look, its parts, and which function each of them calls."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, ExgraMedError
from exgra_med.evaluation.report.graphs import graphs_css
from exgra_med.lab.studies.report import study_css
from exgra_med.llm.request import Sampling
from exgra_med.model.published import NOTICE
from exgra_med.web import chat_view
from exgra_med.web.chat import ChatService, Dialogue
from exgra_med.web.examples import Examples, examples_for
from exgra_med.web.limits import MEGABYTE
from exgra_med.web.run_view import Views
from exgra_med.web.runs_tab import alignment_tab, gr, html, runs_tab

_PAGE = Path(__file__).parent / "page.css"
_FIRST_OF_PARTS = "h1 {"
"""The report's style begins with rules for a whole page, which here is Gradio's."""
_FONTS = "system-ui,-apple-system,Segoe UI,Roboto,Noto Sans,DejaVu Sans,sans-serif".split(",")
_TEAL = (
    "#eef5f3", "#d5ebe7", "#a9d8d1", "#74bfb6", "#2f8f88", "#0b6e69",
    "#0a635f", "#095a56", "#084c49", "#073f3c", "#052a28",
)  # fmt: skip
"""Colours of Gradio's parts, light to dark; the sixth is the accent colour of the report."""
_MONO = ["ui-monospace", "DejaVu Sans Mono", "monospace"]


def page_css() -> str:
    """Our style, with the report's inside our own parts of the page."""
    css = graphs_css()
    parts = css[css.index(_FIRST_OF_PARTS) :] + study_css()
    return f".exgra {{\n{parts}\n}}\n{_PAGE.read_text(encoding='utf-8')}"


HEAD = f'<meta name="color-scheme" content="light dark"><style>\n{page_css()}\n</style>'
"""Goes into the head of the page."""


def theme() -> Any:
    """Gradio's plain theme with system fonts; no font is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.Color(*_TEAL),
        neutral_hue=gr.themes.colors.slate,
        font=_FONTS,
        font_mono=_MONO,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        button_primary_background_fill="#0b6e69",
        button_primary_background_fill_hover="#095a56",
        button_primary_background_fill_dark="#0b6e69",
        button_primary_background_fill_hover_dark="#0f7f79",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        body_background_fill="#faf9f6",
        body_background_fill_dark="#11161c",
        block_background_fill_dark="#191f27",
        block_border_color_dark="#2c3540",
        border_color_primary_dark="#2c3540",
        input_background_fill="#ffffff",
        input_background_fill_dark="#11161c",
        input_border_color="#c9ccd1",
        input_border_width="1px",
        input_border_color_dark="#3b4653",
        block_label_background_fill_dark="#191f27",
        block_title_text_color="#3c4753",
        block_label_text_color="#3c4753",
        block_info_text_color="#55606c",
        block_info_text_color_dark="#a3aeba",
        body_text_color_subdued="#55606c",
        body_text_color_subdued_dark="#a3aeba",
        input_placeholder_color="#636e7a",
        input_placeholder_color_dark="#8d99a6",
    )


def notice_html(
    notice: str, hosts: Sequence[str], kept_days: int | None, keeps_votes: bool = False
) -> str:
    """The notice above every tab: purpose, where questions are sent, what is stored."""
    first, _, rest = notice.partition(". ")
    sentences = [f"<strong>{escape(first)}.</strong> {escape(rest)}"]
    if hosts:
        sentences.append(f"Questions and pictures are sent to {escape(', '.join(hosts))}.")
    if kept_days is None:
        sentences.append("Nothing you ask or upload is stored.")
    else:
        sentences.append(f"Questions and answers are stored for {kept_days} days, pictures not.")
    if keeps_votes:
        sentences.append("Of a vote the two models and the better one are stored.")
    return (
        '<header class="page-head"><h1>ExGra-Med</h1>'
        f'<p class="notice" role="note">{" ".join(sentences)}</p></header>'
    )


QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_PICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (button) trigger('click', {example: Number(button.dataset.example)});
});"""
_NOBODY = "no other model"
"""Of the models that answer beside the first."""
_SHOW_ASK = """async () => {
  await new Promise(requestAnimationFrame);
  await document.querySelector('#picture img')?.decode();
  const send = document.getElementById('send');
  if (send.getBoundingClientRect().bottom > innerHeight) send.scrollIntoView({block: 'center'});
}"""
"""On a phone the button is a screen below the examples, and the picture moves it further."""


def build_page(chat: ChatService, views: Views, uploads: Path, kept_days: int | None) -> Any:
    """All of the page; `kept_days` is None where questions and answers are not stored."""
    with gr.Blocks(title="ExGra-Med", analytics_enabled=False, fill_width=True) as page:
        hosts = sorted({model.host for model in chat.models if model.host})
        notice = notice_html(NOTICE, hosts, kept_days, chat.votes.path is not None)
        gr.HTML(notice, js_on_load=None, elem_id="notice")
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Chat", id="chat"):
                _chat_tab(page, chat, uploads)
            with gr.Tab("Alignment", id="alignment"):
                alignment_tab(page, views)
            with gr.Tab("Runs", id="runs"):
                runs_tab(page, views)
    page.queue(max_size=chat.limits.max_queue, default_concurrency_limit=2, api_open=False)
    return page


def _chat_tab(page: gr.Blocks, chat: ChatService, uploads: Path) -> None:
    limits = chat.limits
    examples = examples_for(chat.models)
    state = gr.State(
        None,
        time_to_live=60 * limits.forget_after_minutes,
        delete_callback=lambda dialogue: (
            chat.pictures.drop(dialogue.pictures) if dialogue else None
        ),
    )
    names, begun = [each.name for each in chat.models], [each.name for each in chat.asked_first]
    with gr.Row(visible=len(names) > 1, elem_id="menu") as menu:
        model = gr.Dropdown(
            names, value=next(iter(begun), None), label="Model", elem_id="model", min_width=220
        )
        other = gr.Dropdown(
            [_NOBODY, *names],
            value=begun[1] if len(begun) > 1 else _NOBODY,
            label="Compare with",
            elem_id="other",
            min_width=220,
        )
        blind = gr.Checkbox(
            False,
            label="Blind: names after the vote",
            visible=len(begun) > 1,
            elem_id="blind",
            min_width=220,
        )
    answering = html(chat_view.models_html(chat.asked_first), "answering")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            picture = html(chat_view.pictures_html([]), "picture")
            upload = gr.File(
                label="Pictures: PNG, JPEG, TIFF or DICOM",
                file_count="multiple",
                elem_id="upload",
                height=170,
            )
            buttons = html(examples.html(limits.max_pixels), "examples", _PICK)
            remember = gr.Checkbox(
                False,
                label="Keep the conversation",
                info="Follow-up questions see the questions and answers before them. Off, each "
                "question is asked alone: models here were trained on single questions.",
                elem_id="remember",
            )
            with gr.Accordion("Decoding", open=False):
                longest = gr.Slider(
                    1, limits.max_new_tokens, min(128, limits.max_new_tokens), step=1,
                    label="Longest answer (tokens)",
                )  # fmt: skip
                temperature = gr.Slider(
                    0, 1.5, 0, step=0.05, label="Temperature", info="0: greedy, the likeliest token"
                )
                top_p = gr.Slider(
                    0.05, 1, 1, step=0.05, label="Top-p", info="Needs a temperature above 0"
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        with gr.Column(scale=3, min_width=320):
            empty = chat_view.conversation_html(Dialogue())
            conversation = html(empty, "conversation", autoscroll=True, max_height=560)
            problem = html("", "problem")
            question = gr.Textbox(
                label="Question",
                placeholder="What is shown?",
                lines=1,
                max_lines=6,
                max_length=limits.max_prompt_characters,
                elem_id="question",
                submit_btn=False,
            )
            with gr.Row():
                send = gr.Button("Ask", variant="primary", elem_id="send", min_width=90)
                stop = gr.Button("Stop", elem_id="stop", min_width=90)
                clear = gr.Button("Clear", elem_id="clear", min_width=90)
            status = html("", "status")
            with gr.Row(visible=False, elem_id="vote") as ballot:
                first = gr.Button("A is better", elem_id="vote-a", min_width=90)
                equal = gr.Button("Equal", elem_id="vote-equal", min_width=90)
                second = gr.Button("B is better", elem_id="vote-b", min_width=90)
            tallies = html(_tallies(chat), "tallies")
            look = gr.Button("Where did it look?", elem_id="look", min_width=90)
            looked = html("", "looked")

    asked = gr.on(
        [send.click, question.submit],
        _answer_with(chat),
        [state, question, model, other, blind, remember, longest, temperature, top_p, seed],
        [state, conversation, problem, question, status, ballot, looked],
        concurrency_limit=limits.answers_at_once,
        concurrency_id="compute",
        trigger_mode="once",
        **QUIET,
    )
    looking = look.click(
        _look_with(chat),
        [state],
        [looked, problem],
        concurrency_limit=limits.answers_at_once,
        concurrency_id="compute",
        trigger_mode="once",
        **QUIET,
    )
    for button, better in ((first, 0), (equal, None), (second, 1)):
        button.click(
            _vote_with(chat, better),
            [state],
            [conversation, problem, status, ballot, tallies],
            queue=False,
            **QUIET,
        )
    page.load(_menu_with(chat), None, [menu, model, other, answering, tallies], **QUIET)
    gr.on(
        [model.input, other.input],
        _choose_with(chat),
        [model, other],
        [answering, blind],
        **QUIET,
    )
    stop.click(
        _stop, [state], [conversation, status], cancels=[asked, looking], queue=False, **QUIET
    )
    clear.click(
        _clear_with(chat),
        [state],
        [state, conversation, picture, problem, status, ballot, looked],
        cancels=[asked, looking],
        queue=False,
        **QUIET,
    )
    shown = [state, picture, conversation, problem, status, ballot, looked]
    upload.upload(_upload_with(chat, uploads), [state, upload], [*shown, upload], **QUIET)
    chosen = buttons.click(_example_with(chat, examples), [state], [*shown, question], **QUIET)
    chosen.then(None, js=_SHOW_ASK, **QUIET)


def _answer_with(chat: ChatService) -> Callable[..., Iterator[tuple[Any, ...]]]:
    def answer(
        dialogue: Dialogue | None,
        text: str,
        model: str | None,
        other: str | None,
        blind: bool,
        remember: bool,
        longest: float,
        temperature: float,
        top_p: float,
        seed: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        dialogue = dialogue or Dialogue()
        client = request.client.host if request.client else ""
        try:
            sampling = Sampling(
                max_tokens=int(longest),
                temperature=float(temperature),
                top_p=float(top_p),
                seed=int(seed or 0),
            )
            # Once: a later update would take away what a visitor types meanwhile, or "Stopped.".
            rest: tuple[Any, ...] = ("", "", "", gr.Row(visible=False), "")
            names = [name for name in (model, other) if name and name != _NOBODY]
            talk = {"remember": bool(remember), "blind": bool(blind)}
            for _ in chat.ask(dialogue, text or "", names, sampling, client, **talk):
                yield dialogue, chat_view.conversation_html(dialogue), *rest
                rest = (gr.skip(),) * 5
        except (ExgraMedError, TypeError, ValueError) as error:
            known = isinstance(error, ExgraMedError)
            sentence = str(error) if known else "The settings are not numbers."
            said = chat_view.problem_html(sentence)
            yield dialogue, gr.skip(), said, gr.skip(), "", gr.skip(), gr.skip()
            return
        # The last update says how each answer ended.
        done = _status("Stopped." if dialogue.stop.is_set() else "The answer is complete.")
        ballot = gr.Row(visible=dialogue.exchanges[-1].can_be_voted_on)
        shown = chat_view.conversation_html(dialogue)
        yield dialogue, shown, gr.skip(), gr.skip(), done, ballot, gr.skip()

    return answer


def _menu_with(chat: ChatService) -> Callable[[], tuple[Any, ...]]:
    def menu() -> tuple[Any, ...]:
        chat.refresh()
        names = [model.name for model in chat.models]
        chosen = chat.asked_first
        first = gr.Dropdown(names, value=names[0] if names else None)
        second = gr.Dropdown(
            [_NOBODY, *names], value=chosen[1].name if len(chosen) > 1 else _NOBODY
        )
        about = chat_view.models_html(chosen)
        return gr.Row(visible=len(names) > 1), first, second, about, _tallies(chat)

    return menu


def _choose_with(chat: ChatService) -> Callable[..., tuple[Any, ...]]:
    def choose(model: str | None, other: str | None) -> tuple[Any, ...]:
        known = {each.name: each for each in chat.models}
        chosen = [known[name] for name in dict.fromkeys((model, other)) if name in known]
        pair = len(chosen) == 2
        return chat_view.models_html(chosen), gr.Checkbox(visible=pair)

    return choose


def _tallies(chat: ChatService) -> str:
    tallies = chat.votes.tallies({model.name for model in chat.models})
    return chat_view.tallies_html(tallies, chat.votes.path is not None)


def _vote_with(chat: ChatService, better: int | None) -> Callable[..., tuple[Any, ...]]:
    def vote(dialogue: Dialogue | None) -> tuple[Any, ...]:
        dialogue = dialogue or Dialogue()
        try:
            chat.vote(dialogue, better)
        except ExgraMedError as error:
            known = str(error) if isinstance(error, DataError) else "The vote cannot be written."
            return gr.skip(), chat_view.problem_html(known), "", gr.skip(), gr.skip()
        shown = chat_view.conversation_html(dialogue)
        return shown, "", _status("The vote is counted."), gr.Row(visible=False), _tallies(chat)

    return vote


def _look_with(chat: ChatService) -> Callable[..., Iterator[tuple[Any, ...]]]:
    def look(dialogue: Dialogue | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        dialogue = dialogue or Dialogue()
        client = request.client.host if request.client else ""
        try:
            pictures = chat.pictures.get(dialogue.pictures) if dialogue.pictures else []
            for looked in chat.look(dialogue, client):
                yield chat_view.looked_html(looked, pictures[0]), ""
        except ExgraMedError as error:
            yield "", chat_view.problem_html(str(error))

    return look


def _stop(dialogue: Dialogue | None) -> tuple[Any, Any]:
    if dialogue is None:
        return gr.skip(), ""
    dialogue.stop.set()
    for exchange in dialogue.exchanges[-1:]:
        for answer in exchange.answers:
            answer.ended = answer.ended or "stopped"
    return chat_view.conversation_html(dialogue), _status("Stopped.")


def _clear_with(chat: ChatService) -> Callable[..., tuple[Any, ...]]:
    def clear(dialogue: Dialogue | None) -> tuple[Any, ...]:
        _end(chat, dialogue)
        fresh = Dialogue()
        done = _status("Pictures and conversation are deleted.")
        empty = chat_view.conversation_html(fresh)
        gone = gr.Row(visible=False)
        return fresh, empty, chat_view.pictures_html([]), "", done, gone, ""

    return clear


def _end(chat: ChatService, dialogue: Dialogue | None) -> None:
    if dialogue is not None:
        dialogue.stop.set()
        chat.pictures.drop(dialogue.pictures)


def _status(sentence: str) -> str:
    return f'<p role="status" class="quiet">{sentence}</p>'


def _begin(chat: ChatService, dialogue: Dialogue | None, images: list[Any]) -> tuple[Any, ...]:
    """New pictures begin a new conversation: earlier questions were about others."""
    fresh = Dialogue(pictures=chat.pictures.put(images))
    _end(chat, dialogue)
    pictures, empty = chat_view.pictures_html(images), chat_view.conversation_html(fresh)
    return fresh, pictures, empty, "", "", gr.Row(visible=False), ""


def _upload_with(chat: ChatService, uploads: Path) -> Callable[..., tuple[Any, ...]]:
    def take(dialogue: Dialogue | None, paths: list[str] | None) -> tuple[Any, ...]:
        try:
            images = read_uploads(paths or [], uploads, chat)
            return *_begin(chat, dialogue, images), None
        except ExgraMedError as error:
            said = chat_view.problem_html(str(error))
            return dialogue, gr.skip(), gr.skip(), said, "", gr.skip(), gr.skip(), None

    return take


def read_uploads(paths: list[str], uploads: Path, chat: ChatService) -> list[Any]:
    """The pictures of an upload, in its order; its files are deleted in any case."""
    files = [Path(path).resolve() for path in paths]
    own = [each for each in files if each.is_relative_to(uploads.resolve()) and each.is_file()]
    limits = chat.limits
    try:
        if not files:
            raise DataError("There is no file.")
        if len(own) < len(files):
            raise DataError("The file is not an upload of this page.")
        if len(files) > limits.max_pictures:
            raise DataError(
                f"The upload has {len(files)} files, and a conversation at most "
                f"{limits.max_pictures} pictures.",
                "Send fewer.",
            )
        if sum(each.stat().st_size for each in files) > limits.max_upload_megabytes * MEGABYTE:
            raise DataError(f"The upload has more than {limits.max_upload_megabytes} MB.")
        pictures: list[Any] = []
        for number, each in enumerate(files, start=1):
            pictures.append(_read_upload(each, f"{number} of {len(files)}", chat))
            # A few bytes can be many pixels: no more is decoded than can be kept.
            chat.pictures.require_room(pictures)
        return pictures
    finally:
        for each in own:
            each.unlink(missing_ok=True)


def _read_upload(file: Path, place: str, chat: ChatService) -> Any:
    """One picture; an error says which one by its place, as names of files may name patients."""
    try:
        return chat.decoder.read(file.read_bytes())
    except DataError as error:
        if place == "1 of 1":
            raise
        raise DataError(f"File {place}: {error.message}", error.hint) from error


def _example_with(chat: ChatService, examples: Examples) -> Callable[..., tuple[Any, ...]]:
    def choose(dialogue: Dialogue | None, event: gr.EventData) -> tuple[Any, ...]:
        number = event._data.get("example") if isinstance(event._data, dict) else None
        if not isinstance(number, int) or not 0 <= number < len(examples.records):
            return dialogue, *[gr.skip()] * 7
        image = examples.picture(number, chat.limits.max_pixels)
        return *_begin(chat, dialogue, [image]), examples.records[number].question

    return choose
