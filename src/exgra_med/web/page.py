"""The page in Gradio: its parts and what they are wired to; the work is done elsewhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, ExgraMedError, import_extra
from exgra_med.llm.request import Sampling
from exgra_med.model.published import NOTICE
from exgra_med.web import chat_view
from exgra_med.web.dialogue import Dialogue, Room
from exgra_med.web.limits import MEGABYTE
from exgra_med.web.pictures import read_picture
from exgra_med.web.runs_tab import alignment_tab, runs_tab
from exgra_med.web.style import HEAD, notice_html, theme
from exgra_med.web.views import Views

gr: Any = import_extra("gradio", "The page", "web")
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_PICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (button) trigger('click', {example: Number(button.dataset.example)});
});"""


def build_page(room: Room, views: Views, uploads: Path, kept_days: int | None) -> Any:
    """All of the page.

    Args:
        room: models and limits.
        views: runs that may be looked at.
        uploads: the private folder where Gradio leaves uploads.
        kept_days: how long exchanges are written down; None where they are not.
    """
    with gr.Blocks(title="ExGra-Med", analytics_enabled=False, fill_width=True) as page:
        hosts = sorted({speaker.host for speaker in room.speakers if speaker.host})
        gr.HTML(notice_html(NOTICE, hosts, kept_days), js_on_load=None, elem_id="notice")
        with gr.Tabs(elem_id="views"):
            with gr.Tab("Chat", id="chat"):
                _chat_tab(page, room, uploads)
            with gr.Tab("Alignment", id="alignment"):
                alignment_tab(page, views)
            with gr.Tab("Runs", id="runs"):
                runs_tab(page, views)
    page.queue(max_size=room.limits.max_queue, default_concurrency_limit=2, api_open=False)
    return page


def appearance() -> dict[str, Any]:
    """Arguments of `mount_gradio_app` that decide how the page looks."""
    return {"theme": theme(), "head": HEAD}


def _html(value: str = "", name: str | None = None, script: str | None = None, **more: Any) -> Any:
    return gr.HTML(
        value,
        js_on_load=script,
        elem_id=name,
        elem_classes=["exgra"],
        apply_default_css=False,
        **more,
    )


def _chat_tab(page: gr.Blocks, room: Room, uploads: Path) -> None:
    limits = room.limits
    records = chat_view.example_records()
    names = [speaker.name for speaker in room.speakers]
    state = gr.State(
        None,
        time_to_live=60 * limits.forget_after_minutes,
        delete_callback=lambda dialogue: room.shelf.drop(dialogue.picture) if dialogue else None,
    )
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            picture = _html(chat_view.picture_html(None), "picture")
            upload = gr.File(
                label="Picture: PNG, JPEG, TIFF or DICOM", elem_id="upload", height=170
            )
            examples = _html(chat_view.examples_html(records, limits.max_pixels), "examples", _PICK)
            models = gr.CheckboxGroup(
                names, value=names, label="Models to ask", visible=len(names) > 1, elem_id="models"
            )
            with gr.Accordion("Decoding", open=False):
                longest = gr.Slider(
                    1, limits.max_new_tokens, min(128, limits.max_new_tokens), step=1,
                    label="Longest answer (tokens)",
                )  # fmt: skip
                temperature = gr.Slider(
                    0, 1.5, 0, step=0.05, label="Temperature", info="0 takes the likeliest word"
                )
                top_p = gr.Slider(
                    0.05, 1, 1, step=0.05, label="Top-p", info="Of any use with a temperature only"
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        with gr.Column(scale=3, min_width=320):
            conversation = _html(
                chat_view.conversation_html(Dialogue()),
                "conversation",
                autoscroll=True,
                max_height=560,
            )
            problem = _html("", "problem")
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
            status = _html("", "status")

    answer = _answer_with(room)
    settings = [models, longest, temperature, top_p, seed]
    asked = gr.on(
        [send.click, question.submit],
        answer,
        [state, question, *settings],
        [state, conversation, problem, question, status],
        concurrency_limit=limits.answers_at_once,
        concurrency_id="compute",
        trigger_mode="once",
        **QUIET,
    )
    stop.click(_stop, [state], [conversation, status], cancels=[asked], queue=False, **QUIET)
    clear.click(
        _clear_with(room),
        [state],
        [state, conversation, picture, problem, status],
        cancels=[asked],
        queue=False,
        **QUIET,
    )
    shown = [state, picture, conversation, problem]
    upload.upload(_upload_with(room, uploads), [state, upload], [*shown, upload], **QUIET)
    examples.click(_example_with(room, records), [state], [*shown, question], **QUIET)


def _answer_with(room: Room) -> Callable[..., Iterator[tuple[Any, ...]]]:
    def answer(
        dialogue: Dialogue | None,
        text: str,
        names: list[str],
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
            for _ in room.ask(dialogue, text or "", names or [], sampling, client):
                html = chat_view.conversation_html(dialogue)
                yield dialogue, html, "", "", ""
        except (ExgraMedError, TypeError, ValueError) as error:
            known = isinstance(error, ExgraMedError)
            sentence = str(error) if known else "The settings are not numbers."
            yield dialogue, gr.skip(), chat_view.problem_html(sentence), gr.skip(), ""
            return
        # The last one says how each answer ended.
        html = chat_view.conversation_html(dialogue)
        yield dialogue, html, "", "", '<p role="status" class="quiet">The answer is complete.</p>'

    return answer


def _stop(dialogue: Dialogue | None) -> tuple[Any, Any]:
    if dialogue is None:
        return gr.skip(), ""
    dialogue.stop.set()
    for exchange in dialogue.exchanges[-1:]:
        for said in exchange.answers:
            said.ended = said.ended or "stopped"
    html = chat_view.conversation_html(dialogue)
    return html, '<p role="status" class="quiet">Stopped.</p>'


def _clear_with(room: Room) -> Callable[..., tuple[Any, ...]]:
    def clear(dialogue: Dialogue | None) -> tuple[Any, ...]:
        if dialogue is not None:
            dialogue.stop.set()
            room.shelf.drop(dialogue.picture)
        fresh = Dialogue()
        empty = chat_view.conversation_html(fresh)
        done = '<p role="status" class="quiet">Picture and conversation are forgotten.</p>'
        return fresh, empty, chat_view.picture_html(None), "", done

    return clear


def _begin(room: Room, dialogue: Dialogue | None, image: Any) -> tuple[Any, ...]:
    """A new picture begins a new conversation: questions about another one would mislead."""
    if dialogue is not None:
        dialogue.stop.set()
        room.shelf.drop(dialogue.picture)
    fresh = Dialogue(picture=room.shelf.put(image))
    return fresh, chat_view.picture_html(image), chat_view.conversation_html(fresh), ""


def _upload_with(room: Room, uploads: Path) -> Callable[..., tuple[Any, ...]]:
    def take(dialogue: Dialogue | None, path: str | None) -> tuple[Any, ...]:
        try:
            image = read_picture(_content(path, uploads, room), room.limits.max_pixels)
            return *_begin(room, dialogue, image), None
        except ExgraMedError as error:
            return dialogue, gr.skip(), gr.skip(), chat_view.problem_html(str(error)), None

    return take


def _content(path: str | None, uploads: Path, room: Room) -> bytes:
    """The bytes of an upload, whose file is deleted whatever happens."""
    if not path:
        raise DataError("There is no file.")
    file = Path(path).resolve()
    if not file.is_relative_to(uploads.resolve()) or not file.is_file():
        raise DataError("That is no upload of this page.")
    try:
        if file.stat().st_size > room.limits.max_upload_megabytes * MEGABYTE:
            raise DataError(f"The file has more than {room.limits.max_upload_megabytes} MB.")
        return file.read_bytes()
    finally:
        file.unlink()


def _example_with(room: Room, records: Any) -> Callable[..., tuple[Any, ...]]:
    def choose(dialogue: Dialogue | None, event: gr.EventData) -> tuple[Any, ...]:
        number = event._data.get("example") if isinstance(event._data, dict) else None
        if not isinstance(number, int) or not 0 <= number < len(records):
            return dialogue, gr.skip(), gr.skip(), gr.skip(), gr.skip()
        image = chat_view.example_picture(records[number], room.limits.max_pixels)
        return *_begin(room, dialogue, image), records[number].question

    return choose
