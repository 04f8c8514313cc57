"""A conversation as HTML. All text of models, visitors and files is escaped."""

from collections.abc import Sequence
from html import escape

from PIL import Image

from exgra_med.evaluation.report.page import jpeg
from exgra_med.web.chat import Dialogue, ModelAnswer
from exgra_med.web.chat_models import ChatModel

_SIDE_PIXELS = 640
_ABOUT = {
    "small": (
        "160M parameters",
        "A real model, for trying things out. It gives one short answer to one question about one "
        "picture. SLAKE, English test: strict average 71.2 % (one seed); the best baseline that "
        "sees no picture has 53.8 %. It cannot answer VQA-RAD’s questions: 38.8 %, where such a "
        "baseline has 40.6 %. Research use only.",
    ),
    "toy": (
        "toy model",
        "It began with random weights, not with a pretrained model. Its answers show that the "
        "software works, and nothing about medicine.",
    ),
}
"""By the kind of a model: a badge, and what a visitor has to know before he asks."""
_ENDED = {
    "stop": "",
    "length": "cut at the longest length allowed",
    "stopped": "stopped by you",
    "time": "cut, because it took too long",
    "failed": "failed",
}


def models_html(models: Sequence[ChatModel]) -> str:
    """Which models answer, and what is known of each."""
    items = []
    for model in models:
        badge, about = _ABOUT.get(model.kind, ("", ""))
        shown = f' <span class="badge">{badge}</span>' if badge else ""
        items.append(f"<li><b>{escape(model.name)}</b> answers.{shown} {about}</li>")
    return f'<ul class="models">{"".join(items)}</ul>'


def conversation_html(dialogue: Dialogue) -> str:
    """All questions with their answers, the newest last."""
    if not dialogue.exchanges:
        return (
            '<p class="hint">Give a picture and a question. Answers appear here while they are '
            "written.</p>"
        )
    items = [
        f'<li><p class="asked"><span class="who">You asked</span>'
        f'{escape(exchange.question)}</p><div class="answers">'
        f"{''.join(_answer_html(answer) for answer in exchange.answers)}</div></li>"
        for exchange in dialogue.exchanges
    ]
    # Focusable, so that the keyboard can scroll it.
    return (
        '<div role="log" aria-label="Conversation" tabindex="0">'
        f'<ol class="conversation">{"".join(items)}</ol></div>'
    )


def _answer_html(answer: ModelAnswer) -> str:
    text = escape(answer.text)
    if answer.problem:
        text += f'<span class="problem">{escape(answer.problem)}</span>'
    elif answer.ended and not answer.text:
        what = "thoughts, and no answer" if answer.written else "an empty answer"
        text = f'<span class="quiet">({what})</span>'
    elif not answer.ended:
        text += '<span class="cursor" aria-hidden="true"></span>'
    return (
        f'<article class="reply"><h3>{escape(answer.model)}</h3><p class="text">{text}</p>'
        f'<p class="timing">{escape(timing(answer))}</p></article>'
    )


def timing(answer: ModelAnswer) -> str:
    """Time of the first word and of the whole answer, tokens, speed, and why it ended, as text."""
    if not answer.ended and not answer.seconds:
        return "waiting"
    parts = []
    if answer.first_seconds is not None:
        parts.append(f"first word after {answer.first_seconds:.2f} s")
    if answer.num_tokens is None:
        parts.append(f"{answer.seconds:.2f} s in all")
    else:
        parts.append(f"{answer.num_tokens} tokens in {answer.seconds:.2f} s")
        if answer.seconds > 0:
            parts.append(f"{answer.num_tokens / answer.seconds:.1f} tokens/s")
    if not answer.ended:
        parts.append("writing")
    elif _ENDED[answer.ended]:
        parts.append(_ENDED[answer.ended])
    return " · ".join(parts)


def pictures_html(pictures: Sequence[Image.Image]) -> str:
    """The pictures of a conversation in their order, their pixels only; several are numbered."""
    if not pictures:
        return '<p class="hint">No picture yet. A question without one is answered from text.</p>'
    sizes = [f"{picture.width} × {picture.height} pixels" for picture in pictures]
    if len(pictures) == 1:
        return (
            f'<figure class="given"><img alt="The picture you gave, {sizes[0]}" '
            f'src="data:image/jpeg;base64,{jpeg(pictures[0], _SIDE_PIXELS)}">'
            f"<figcaption>{sizes[0]}. Only pixels are used; the file is deleted.</figcaption>"
            "</figure>"
        )
    items = [
        f'<li><img alt="Picture {number} of {len(pictures)}, {size}" '
        f'src="data:image/jpeg;base64,{jpeg(picture, _SIDE_PIXELS // 2)}"></li>'
        for number, (picture, size) in enumerate(zip(pictures, sizes, strict=True), start=1)
    ]
    return (
        # Focusable, so that the keyboard can scroll it.
        f'<figure class="given"><ol class="several" tabindex="0" aria-label="Your pictures">'
        f"{''.join(items)}</ol><figcaption><span>{len(pictures)} pictures, given to the model in "
        "this order. To say where each one stands in a question, write <code>&lt;image&gt;</code> "
        f"{len(pictures)} times. Only pixels are used; the files are deleted.</span></figcaption>"
        "</figure>"
    )


def problem_html(sentence: str) -> str:
    """An error message, announced by screen readers."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>' if sentence else ""
