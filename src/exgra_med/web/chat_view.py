"""A conversation as HTML. All text of models, visitors and files is escaped."""

from collections.abc import Sequence
from html import escape
from string import ascii_uppercase

from PIL import Image

from exgra_med.evaluation.occlusion import Occlusion
from exgra_med.evaluation.report.page import jpeg
from exgra_med.web.chat import Dialogue, Exchange, Looked, ModelAnswer
from exgra_med.web.chat_models import ChatModel
from exgra_med.web.votes import Tally

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
    if not models:
        return (
            '<p class="hint">No model answers here yet. A run in training can be asked once it has '
            "finished: then load this page again. Its curves are under Runs.</p>"
        )
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
        f"{''.join(_answers_html(exchange, dialogue.hides(exchange)))}</div>"
        f"{_vote_html(exchange)}</li>"
        for exchange in dialogue.exchanges
    ]
    # Focusable, so that the keyboard can scroll it.
    return (
        '<div role="log" aria-label="Conversation" tabindex="0">'
        f'<ol class="conversation">{"".join(items)}</ol></div>'
    )


def _answers_html(exchange: Exchange, hidden: bool) -> list[str]:
    if len(exchange.answers) == 1:
        return [_answer_html(answer, answer.model) for answer in exchange.answers]
    return [
        _answer_html(answer, letter if hidden else f"{letter}: {answer.model}", hidden)
        for letter, answer in zip(ascii_uppercase, exchange.answers, strict=False)
    ]


def _answer_html(answer: ModelAnswer, name: str, hidden: bool = False) -> str:
    text = escape(answer.text)
    if answer.problem:
        # What a model says of itself may name it.
        what = "This model failed." if hidden else answer.problem
        text += f'<span class="problem">{escape(what)}</span>'
    elif answer.ended and not answer.text:
        what = "thoughts, and no answer" if answer.written else "an empty answer"
        text = f'<span class="quiet">({what})</span>'
    elif not answer.ended:
        text += '<span class="cursor" aria-hidden="true"></span>'
    # So may its speed.
    told = ("complete" if answer.ended else "waiting or writing") if hidden else timing(answer)
    return (
        f'<article class="reply"><h3>{escape(name)}</h3><p class="text">{text}</p>'
        f'<p class="timing">{escape(told)}</p></article>'
    )


def _vote_html(exchange: Exchange) -> str:
    if exchange.vote is None:
        return ""
    better = exchange.vote.better
    said = "both are as good" if better is None else f"{better} is better"
    return f'<p class="voted">Your vote: {escape(said)}.</p>'


def timing(answer: ModelAnswer) -> str:
    """Time of the first word and of the whole answer, tokens, speed, and why it ended, as text."""
    if answer.is_loading and not answer.ended:
        return "loading the model"
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


def tallies_html(tallies: Sequence[Tally], is_kept: bool) -> str:
    """Votes on each pair of models, with an interval."""
    if not tallies:
        return ""
    heads = ("Blind", "First : second", "Equal", "First is better, %")
    rows = "".join(
        f'<tr><th scope="row">{escape(each.models[0])}<small>or {escape(each.models[1])}</small>'
        f"</th>{''.join(_cells(each, heads))}</tr>"
        for each in tallies
    )
    titles = "".join(f'<th scope="col" class="n">{head}</th>' for head in heads)
    kept = "are kept in a file" if is_kept else "are counted until this page is closed"
    return (
        "<h3>Votes</h3>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Votes"><table class="stack">'
        f'<thead><tr><th scope="col">First, or second model</th>{titles}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="under">Votes of all visitors {kept}: which models, which was better, nothing '
        "of question or picture. The share is of the votes that found one better, with Wilson’s "
        "95 % interval. An interval that holds 50 does not tell the two apart.</p>"
    )


def _cells(tally: Tally, heads: Sequence[str]) -> list[str]:
    told = (
        "yes" if tally.blind else "no",
        f"{tally.wins[0]} : {tally.wins[1]}",
        str(tally.num_equal),
        _share(tally),
    )
    return [
        f'<td class="n" data-label="{head}">{text}</td>'
        for head, text in zip(heads, told, strict=True)
    ]


def _share(tally: Tally) -> str:
    if tally.share is None or tally.interval is None:
        return "–"
    low, high = tally.interval
    return f"{tally.share:.0f}<small>{low:.0f} to {high:.0f}</small>"


_FULL_POINTS = 5.0
"""A map whose largest change is smaller is not drawn at full strength."""
_STRENGTH = 0.75
"""Opacity of the strongest cell; the picture stays visible below it."""


def looked_html(looked: Sequence[Looked], picture: Image.Image) -> str:
    """Where models looked for their answers: a map on the picture for each."""
    return (
        f'<div class="looks">{"".join(_looked_html(each, picture) for each in looked)}</div>'
        '<p class="under">A grey patch covers one part after the other. A high value says that '
        "covering this part changes the answer, not that the model understands it. The patch "
        "itself is something to see, and parts that show the same can stand in for one another.</p>"
    )


def _looked_html(looked: Looked, picture: Image.Image) -> str:
    answer, progress = looked.answer, looked.progress
    head = f"<h3>{escape(answer.model)}: {escape(answer.text[:80])}</h3>"
    if looked.problem:
        return f'<section>{head}<p class="problem">{escape(looked.problem)}</p></section>'
    if progress is None:
        return f'<section>{head}<p class="quiet">waiting</p></section>'
    body = _map_html(progress.found, picture) if progress.found else ""
    left = progress.num_pictures - progress.num_done
    bar = (
        f'<progress max="{progress.num_pictures}" value="{progress.num_done}" '
        f'aria-label="Parts covered"></progress><p class="quiet">{progress.num_done} of '
        f"{progress.num_pictures} pictures</p>"
        if left
        else ""
    )
    return f"<section>{head}{body}{bar}</section>"


def _map_html(found: Occlusion, picture: Image.Image) -> str:
    drops = found.drops
    rows, columns = len(drops), len(drops[0])
    full = max(found.largest, _FULL_POINTS)
    cells = "".join(
        f'<rect class="{"lower" if drop > 0 else "higher"}" x="{column}" y="{row}" width="1" '
        f'height="1" fill-opacity="{_STRENGTH * abs(drop) / full:.3f}"><title>row {row + 1}, '
        f"column {column + 1}: {drop:+.1f} points</title></rect>"
        for row, values in enumerate(drops)
        for column, drop in enumerate(values)
    )
    row, column = found.strongest
    drop = drops[row][column]
    if found.is_flat:
        said = (
            f"Covering no part changes the answer’s likelihood by more than "
            f"{max(found.largest, 0.1):.1f} points: the map shows no part that the answer hangs on."
        )
    elif drop > 0:
        said = (
            f"Covering row {row + 1}, column {column + 1} lowers the answer’s likelihood most: "
            f"from {found.whole:.1f} to {found.whole - drop:.1f} %."
        )
    else:
        said = "Covering any part makes the answer only likelier."
    numbers = "".join(
        f"<tr>{''.join(f'<td>{drop:+.1f}</td>' for drop in values)}</tr>" for values in drops
    )
    return (
        f'<figure class="look"><div class="over"><img alt="The picture you gave" '
        f'src="data:image/jpeg;base64,{jpeg(picture, _SIDE_PIXELS)}">'
        f'<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" role="img" '
        f'aria-label="Map of {rows} times {columns} parts. {escape(said, quote=True)}">{cells}'
        f'</svg></div><figcaption><span class="key"><span class="lower"></span>less likely when '
        f'covered<span class="higher"></span>likelier when covered; full colour at {full:.1f} '
        f"points</span><b>{escape(said)}</b></figcaption></figure>"
        f'<details><summary>In numbers</summary><p class="under">With the whole picture: '
        f"{found.whole:.1f} %, the mean probability of a token of the answer. Below: by how many "
        f'points covering a part lowers it.</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Map in numbers"><table class="map"><tbody>{numbers}</tbody></table></div>'
        "</details>"
    )
