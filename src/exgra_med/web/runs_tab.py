"""The tabs that show runs: matched graphs, and scores with answers."""

from collections.abc import Callable
from typing import Any

from exgra_med.errors import ExgraMedError
from exgra_med.plugins import import_extra
from exgra_med.web import run_view as looking
from exgra_med.web.chat_view import problem_html
from exgra_med.web.run_table import MOST_RUNS
from exgra_med.web.run_view import Views, answers_html, num_pages

gr: Any = import_extra("gradio", "The page", "web")
_QUIET: dict[str, Any] = {"api_visibility": "private"}
_NONE = (
    '<p class="hint">No run is open. Start the page with <code>--runs FOLDER</code> to look at '
    "the runs in it.</p>"
)

_DRAW = (
    '<p class="hint">The pictures show the graphs of a few records, and how they are matched, with '
    "the checkpoint before and the one after the stage. Both are loaded for it.</p>"
)


def html(value: str, name: str, script: str | None = None, **more: Any) -> Any:
    """A part of the page in our style."""
    more |= {"elem_id": name, "elem_classes": ["exgra"], "apply_default_css": False}
    return gr.HTML(value, js_on_load=script, **more)


def _choices(names: list[str], value: str | None = None) -> Any:
    return gr.Dropdown(choices=names, value=value or (names[0] if names else None))


def _result_or(work: Callable[[], Any], otherwise: Callable[[str], Any]) -> Any:
    """The result of `work`; on an error, that of `otherwise` with the message."""
    try:
        return work()
    except ExgraMedError as error:
        return otherwise(problem_html(str(error)))


def alignment_tab(page: gr.Blocks, views: Views) -> None:
    """Choose run, stage and records; draw their graphs before and after training."""
    with gr.Row():
        run = gr.Dropdown([], label="Run", elem_id="graphs-run", scale=3)
        stage = gr.Dropdown([], label="Stage that aligns", elem_id="graphs-stage", scale=2)
        nodes = gr.Slider(2, 16, 8, step=1, label="Records", scale=2, min_width=200)
        draw = gr.Number(0, label="Draw", precision=0, minimum=0, scale=1, min_width=110)
        layers = gr.Checkbox(True, label="With the graph layers", elem_id="graphs-layers")
    button = gr.Button("Draw the graphs", variant="primary", elem_id="graphs-draw")
    shown = html(_NONE, "graphs")

    def runs() -> tuple[Any, str]:
        names = views.names("run")
        return _choices(names), _DRAW if names else _NONE

    def stages(name: str | None) -> Any:
        found = _result_or(lambda: views.stages(name), lambda _: []) if name else []
        return _choices(found, found[-1] if found else None)

    def graphs(name: str | None, stage: str | None, nodes: int, draw: float, layers: bool) -> str:
        if not name:
            return _NONE
        return _result_or(
            lambda: views.graphs(name, stage or "", int(nodes), int(draw or 0), bool(layers)),
            lambda problem: problem,
        )

    page.load(runs, None, [run, shown], show_progress="hidden", **_QUIET)
    run.change(stages, run, stage, show_progress="hidden", **_QUIET)
    button.click(
        graphs,
        [run, stage, nodes, draw, layers],
        shown,
        concurrency_limit=1,
        concurrency_id="compute",
        **_QUIET,
    )


_OPEN_RUN = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-run]');
  if (button) trigger('click', {run: button.dataset.run});
});"""
_LIVE_SECONDS = 4
"""Between two looks at a run in training."""


def runs_tab(page: gr.Blocks, views: Views) -> None:
    """Open a run or a study, compare runs, watch one in training; look through its answers."""
    with gr.Row():
        run = gr.Dropdown([], label="Run or study", elem_id="runs-run", min_width=260)
        others = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=MOST_RUNS - 1,
            label="Compare it with",
            elem_id="runs-others",
            min_width=260,
        )
    compared = html("", "compared")
    live = html("", "live")
    timer = gr.Timer(_LIVE_SECONDS, active=False)
    overview = html(_NONE, "overview", _OPEN_RUN)
    with gr.Group(visible=False) as group, gr.Row():
        mark = gr.Dropdown(
            list(looking.MARKS), value="not right", label="Answers", elem_id="runs-mark"
        )
        about = [
            gr.Dropdown([looking.ANY], label=label, elem_id=f"runs-{name}")
            for name, label in (
                ("type", "Question"),
                ("modality", "Modality"),
                ("organ", "Organ"),
                ("about", "Question type"),
            )
        ]
        page_number = gr.Number(1, label="Page", precision=0, minimum=1, elem_id="runs-page")
    cards = html("", "answers")
    fields = ("type", "modality", "organ", "question_type")

    def runs() -> tuple[Any, Any]:
        return _choices(views.names()), gr.Dropdown(choices=views.names("run"))

    def watched(name: str | None, shown: str) -> tuple[Any, ...]:
        text = _result_or(lambda: views.live(name), lambda problem: problem) if name else ""
        # When training has ended, what the run has come to takes the place of its curves.
        ended = gr.skip()
        if name and shown and not text:
            ended = _result_or(lambda: views.overview(name), lambda problem: problem)
        return text, gr.Timer(active=bool(text)), ended

    def beside(name: str | None, more: list[str] | None) -> str:
        runs = views.names("run")
        names = [each for each in dict.fromkeys([name, *(more or [])]) if each in runs]
        if name not in runs or len(names) < 2:
            return ""
        return _result_or(lambda: views.compared(names), lambda problem: problem)

    def opens(event: gr.EventData) -> Any:
        name = event._data.get("run") if isinstance(event._data, dict) else None
        return gr.Dropdown(value=name) if name in views.names() else gr.skip()

    def opened(name: str | None, *chosen: str | None) -> tuple[Any, ...]:
        text, table = _NONE, None
        if name:
            text = _result_or(lambda: views.overview(name), lambda problem: problem)
            table = _result_or(lambda: views.answers(name), lambda _: None)
        if table is None:
            return text, gr.Group(visible=False), *[gr.skip()] * len(fields)
        # Gradio also calls this when a tab is first shown: what was chosen meanwhile stays.
        found = [
            _choices(choices, value if value in choices else looking.ANY)
            for field, value in zip(fields, chosen, strict=True)
            for choices in [table.choices(field)]
        ]
        return text, gr.Group(visible=True), *found

    def listed(name: str | None, number: float, mark: str, *chosen: str) -> str:
        if not name:
            return ""

        def work() -> str:
            table = views.answers(name)
            if table is None:
                return ""
            values = (value or looking.ANY for value in chosen)
            rows = table.select(mark or looking.ANY, **dict(zip(fields, values, strict=True)))
            wanted = min(max(1, int(number or 1)), num_pages(rows)) - 1
            return answers_html(table, rows, wanted)

        return _result_or(work, lambda problem: problem)

    inputs = [run, page_number, mark, *about]
    page.load(runs, None, [run, others], show_progress="hidden", **_QUIET)
    overview.click(opens, None, run, show_progress="hidden", **_QUIET)
    watching = {"inputs": [run, live], "outputs": [live, timer, overview]}
    run.change(watched, **watching, show_progress="hidden", **_QUIET)
    timer.tick(watched, **watching, trigger_mode="once", show_progress="hidden", **_QUIET)
    gr.on(
        [run.change, others.change],
        beside,
        [run, others],
        compared,
        trigger_mode="always_last",
        show_progress="hidden",
        **_QUIET,
    )
    run.change(opened, [run, *about], [overview, group, *about], **_QUIET).then(
        listed, inputs, cards, **_QUIET
    )
    gr.on(
        [each.input for each in (mark, *about, page_number)],
        listed,
        inputs,
        cards,
        trigger_mode="always_last",
        **_QUIET,
    )
