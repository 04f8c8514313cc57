"""How the page looks: system fonts, the colours of the report, light and dark."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from exgra_med.evaluation.report.graph_page import graphs_css
from exgra_med.studies.report import study_css

_PAGE = Path(__file__).parent / "page.css"
_FIRST_OF_PARTS = "h1 {"
"""The report's style begins with rules for a whole page, which here is Gradio's."""
_FONTS = [
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "DejaVu Sans",
    "sans-serif",
]
_TEAL = (
    "#eef5f3", "#d5ebe7", "#a9d8d1", "#74bfb6", "#2f8f88", "#0b6e69",
    "#0a635f", "#095a56", "#084c49", "#073f3c", "#052a28",
)  # fmt: skip
"""Of Gradio's parts, light to dark; the sixth is the report's accent."""
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
    import gradio as gr  # pyrefly: ignore

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


def notice_html(notice: str, hosts: Sequence[str], kept_days: int | None) -> str:
    """What always stands above: what this is for, where questions go, what is kept."""
    first, _, rest = notice.partition(". ")
    sentences = [f"<strong>{escape(first)}.</strong> {escape(rest)}"]
    if hosts:
        sentences.append(f"Questions and pictures are sent to {escape(', '.join(hosts))}.")
    if kept_days is None:
        sentences.append("Nothing you ask or upload is stored.")
    else:
        sentences.append(f"Questions and answers are stored for {kept_days} days, pictures not.")
    return (
        '<header class="page-head"><h1>ExGra-Med</h1>'
        f'<p class="notice" role="note">{" ".join(sentences)}</p></header>'
    )
