"""Chat templates: turns of a conversation -> segments of text, each supervised or not.

A template is five pieces of text; the same pieces make the training text and the prompt, so that a
prompt is always the beginning of the training text of the same record.

    opening  (user cue answer)*  closing
    `S\\n\\n###`  ` Human: {q}\\n###`  ` Assistant:`  ` {a}\\n###`
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from exgra_med.data.records import IMAGE_PLACEHOLDER, Record, Turn, unplaced
from exgra_med.errors import DataError

IMAGE_PATCH = "<im_patch>"
IMAGE_START = "<im_start>"
IMAGE_END = "<im_end>"
PAD = "[PAD]"
IMAGE_BLOCK = IMAGE_START + IMAGE_PATCH + IMAGE_END
"""One image in a text; the placeholder is repeated once for each visual token after tokenising."""
STOP = "###"
"""The end of a turn: generation stops here."""
_IMAGE_TOKENS = re.compile(
    "|".join(map(re.escape, (IMAGE_PATCH, IMAGE_START, IMAGE_END, PAD, IMAGE_PLACEHOLDER)))
)

_ASSISTANT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
_LLAVA_MED = (
    "You are LLaVA-Med, a large language and vision assistant trained by a group of researchers at "
    "Microsoft, based on the general domain LLaVA architecture."
)
_CLINICAL = (
    "You are designed to assist human with a variety of medical and clinical research tasks using "
    "natural language.Follow the instructions carefully."
)
_VISUAL = (
    "You are able to understand the visual content that the user provides, and assist the user "
    "with a variety of medical and clinical tasks using natural language.Follow the instructions "
    "carefully and explain your answers in detail."
)
_GREETING = "###Human: Hi!###Assistant: Hi there!  How can I help you today?\n###"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text that is learned from (`supervised`) or only read."""

    text: str
    supervised: bool


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The pieces of a chat text; `{text}` stands for the message."""

    opening: str
    user: str
    cue: str
    answer: str
    closing: str = ""
    multiple_choice: bool = False
    """Write the options as the original's OmniMedVQA questions do."""


_OURS = ChatTemplate(
    opening=f"{_ASSISTANT}\n\n###",
    user=" Human: {text}\n###",
    cue=" Assistant:",
    answer=" {text}\n###",
)
_SIMPLE = ChatTemplate(
    opening=f"{_ASSISTANT}{_GREETING}",
    user="Human: {text}###",
    cue="",
    answer="Assistant: {text}###",
)

TEMPLATES: dict[str, ChatTemplate] = {
    # Ours, in training and inference alike: the original's training layout without its last blank.
    "exgra": _OURS,
    # Stages 1 and 2 and fine-tuning of the original.
    "original-train": replace(_OURS, closing=" "),
    # Validation during the original's fine-tuning; its prompt ends before "Assistant:".
    "original-validation": replace(
        _SIMPLE, user="Human: {text}\n###", answer="Assistant: {text}\n###"
    ),
    # Inference of the original: the model writes "Assistant: " itself.
    "original-simple": _SIMPLE,
    # Zero-shot classification of the original; the options are the candidate answers.
    "original-omnimedvqa": replace(_SIMPLE, multiple_choice=True),
    "original-simple-legacy": replace(
        _SIMPLE,
        opening=f"{_LLAVA_MED}{_CLINICAL}###Human: Hi!\n\n### Response:"
        "###Assistant: Hi there!  How can I help you today?\n###",
        user="Human: {text}\n\n### Response:###",
    ),
    "original-multimodal": replace(_SIMPLE, opening=f"{_LLAVA_MED}{_VISUAL}{_GREETING}"),
}


def chat_template(name: str) -> ChatTemplate:
    """The template of that name.

    Raises:
        DataError: there is none.
    """
    if name not in TEMPLATES:
        raise DataError(
            f"There is no chat template {name!r}.", f"The templates are {', '.join(TEMPLATES)}."
        )
    return TEMPLATES[name]


def options_suffix(options: Sequence[str]) -> str:
    """The original's ending of a closed question.

    >>> options_suffix(["Yes", "No"])
    ' (Answer with either "Yes" or "No").'
    """
    quoted = [f'"{option}"' for option in options]
    return f" (Answer with either {', '.join(quoted[:-1])} or {quoted[-1]})."


def multiple_choice_question(question: str, candidates: Sequence[str]) -> str:
    """The original's OmniMedVQA question; the candidates are written as a Python list."""
    return (
        f"{question}Here are {len(candidates)} candidate answers:{list(candidates)} Only return "
        "what you think is the correct answer from the candidate answers, do not return any other "
        "irrelevant text!"
    )


def without_image_tokens(text: str) -> str:
    """The text without anything that would pass for an image."""
    cleaned = _IMAGE_TOKENS.sub("", text)
    return cleaned if cleaned == text else without_image_tokens(cleaned)


def clean_text(text: str) -> str:
    """A message without surrounding blanks and image tokens."""
    return without_image_tokens(text).strip()


def question_pieces(text: str) -> list[str]:
    """The text before, between and behind the placeholders of a question.

    Nothing in a piece passes for an image, so there are exactly as many images as placeholders.
    """
    return [without_image_tokens(piece) for piece in text.strip().split(IMAGE_PLACEHOLDER)]


def question_text(
    text: str, options: Sequence[str] | None = None, multiple_choice: bool = False
) -> str:
    """A question with the answers it allows; its placeholders stay where they are."""
    question = IMAGE_PLACEHOLDER.join(question_pieces(text)).strip()
    if options and multiple_choice:
        return multiple_choice_question(question, options)
    return question + options_suffix(options) if options else question


def user_text(
    text: str,
    num_images: int = 0,
    options: Sequence[str] | None = None,
    multiple_choice: bool = False,
) -> str:
    """The text of a user turn: question and the answers it allows, with its images.

    Each stands in the place of its placeholder; `num_images` more stand behind it all.
    """
    question = question_text(text, options, multiple_choice)
    question += f"\n{IMAGE_PLACEHOLDER}" * num_images
    return question.replace(IMAGE_PLACEHOLDER, IMAGE_BLOCK)


def images_by_turn(turns: Sequence[Turn], num_images: int) -> list[int]:
    """How many of its images each turn of a conversation has: all the first, where none is placed.

    Raises:
        DataError: the placeholders of the questions do not fit the images.
    """
    if problem := unplaced([turn.text for turn in turns if turn.role == "user"], num_images):
        raise DataError(f"{problem[0].upper()}{problem[1:]}.")
    counts = [turn.text.count(IMAGE_PLACEHOLDER) if turn.role == "user" else 0 for turn in turns]
    return counts if any(counts) else [num_images, *counts[1:]]


def render_messages(messages: Sequence[tuple[str, str]], template: ChatTemplate) -> list[Segment]:
    """The text of a conversation, in segments.

    Args:
        messages: `(role, text)`, role `user` or `assistant`, images already in the text.

    Returns:
        The segments; an answer with its end marker is supervised, everything else is not.
    """
    segments = [Segment(template.opening, False)]
    for role, text in messages:
        if role == "user":
            segments.append(Segment(template.user.replace("{text}", text) + template.cue, False))
        else:
            segments.append(Segment(template.answer.replace("{text}", text), True))
    if template.closing:
        segments.append(Segment(template.closing, False))
    return segments


def conversation_segments(record: Record, name: str) -> list[Segment]:
    """The training text of a record.

    The images stand where the questions place them, or else after the first question.
    `record.meta["options"]`, where present, is the list of answers a closed question allows; it is
    named after the first question.
    """
    return _segments(
        record.turns, chat_template(name), len(record.images), record.meta.get("options")
    )


def prompt_text(
    turns: Sequence[Turn], name: str, num_images: int = 0, options: Sequence[str] | None = None
) -> str:
    """The text up to the place where the model answers the last user turn.

    Args:
        turns: alternating turns, the first and the last by the user.
        num_images: images of these turns.
        options: the answers the first question allows, where it is closed.

    Raises:
        DataError: the last turn is not the user's, or the placeholders do not fit the images.
    """
    if not turns or turns[-1].role != "user":
        raise DataError("A prompt must end with a turn by the user.", "Leave out the last answer.")
    template = chat_template(name)
    segments = _segments(turns, template, num_images, options)
    return "".join(segment.text for segment in segments).removesuffix(template.closing)


def _segments(
    turns: Sequence[Turn], template: ChatTemplate, num_images: int, options: Sequence[str] | None
) -> list[Segment]:
    behind = images_by_turn(turns, num_images)[0] - turns[0].text.count(IMAGE_PLACEHOLDER)
    first = user_text(turns[0].text, behind, options, template.multiple_choice)
    messages = [("user", first)]
    for turn in turns[1:]:
        # An answer cannot hold an image: only what a person asks about is shown.
        write = user_text if turn.role == "user" else clean_text
        messages.append((turn.role, write(turn.text)))
    return render_messages(messages, template)


# A reply -> what it says to the person who asked.
#
# Models that think aloud write their thoughts in front of the answer, each family between marks of
# its own; servers hand the marks on, or only the closing one (the opening one stood in the prompt),
# or none (special tokens left out). A thought holds drafts, so nothing in it is ever an answer.

_THINKING = (
    r"(?:\w+:)?(?:think|thinking|thought|thoughts|reasoning|reason|reflection|analysis|scratchpad"
    r"|thought_process|inner_monologue)"
)
_LESS, _MORE = r"(?:<\|?|&lt;)", r"(?:\|?>|&gt;)"
_OPENING = (
    rf"{_LESS}\s*{_THINKING}(?:\s[^<>]*)?{_MORE}",
    r"\[THINK(?:ING)?\]",  # Magistral
    r"◁think▷",  # Kimi-VL
    r"<\|(?:begin_of_thought|START_THINKING)\|>",
    # gpt-oss: every channel but the final one is no answer.
    r"(?:<\|channel\|>|\A)\s*(?:analysis|commentary)\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
    r"\Aanalysis(?=[A-Z])",
    # Gemma and MedGemma.
    r"(?:<\|channel>|<unused94>|\A)\s*thought\n",
    r"\AHere is my thought process:",  # Granite
    r"\A#{1,6}[ ]*(?:Thinking|Thoughts?|Thought process|Reasoning)[ ]*:?[ ]*\n",  # HuatuoGPT-o1
    r"\AThinking\.\.\.\n",  # Ollama's terminal
    r"<details[^>]{0,200}\breasoning\b[^>]{0,200}>",
)
_CLOSING = (
    rf"{_LESS}\s*/\s*{_THINKING}\s*{_MORE}",
    r"\[/THINK(?:ING)?\]",
    r"◁/think▷",
    r"<\|(?:end_of_thought|END_THINKING)\|>",
    r"(?:<\|start\|>\s*assistant\s*)?(?:<\|channel\|>|\A)\s*final\b[^<]*"
    r"(?:<\|constrain\|>[^<]*)?<\|message\|>",
    r"assistantfinal(?=\S)",
    r"<channel\|>",
    r"<unused95>",
)
# These close a thought that was opened, and else are words of the answer.
_CLOSING_WORDS = (
    r"Here is my response:",
    r"^#{1,6}[ ]*Final (?:Response|Answer)[ ]*:?[ ]*\n",
    r"\.\.\.done thinking\.",
)
_THOUGHT_MARKS = re.compile(
    rf"(?P<open>{'|'.join(_OPENING)})|(?P<close>{'|'.join(_CLOSING)})"
    rf"|(?P<words>{'|'.join(_CLOSING_WORDS)})",
    re.IGNORECASE | re.MULTILINE,
)
# `</details>` closes other things too, and an empty thought may be one mark.
_WHOLE_THOUGHT = re.compile(
    r"<details[^>]{0,200}\breasoning\b[^>]{0,200}>.*?</details>", re.IGNORECASE | re.DOTALL
)
_DETAILS_END = re.compile(r"</details>", re.IGNORECASE)
_EMPTY_THOUGHT = re.compile(r"<think\s*/>", re.IGNORECASE)
_OTHER_TURN = re.compile(
    r"(?:<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>|<\|start\|>)\s*(?:user|system)\b.*",
    re.DOTALL,
)
_TURN_MARKS = re.compile(
    r"(?:<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>|<\|start\|>)"
    r"\s*(?:assistant|model)\b(?:\s*<\|end_header_id\|>)?"
    r"|<\|(?:im_end|eot_id|end|return|endoftext|end_of_text|assistant|START_RESPONSE|END_RESPONSE"
    r"|begin_of_solution|end_of_solution|begin_of_box|end_of_box)\|>"
    r"|<(?:end_of_turn|eos|bos|pad)>|</?s>"
)
_ANSWER_TAG = re.compile(
    r"<\s*(?P<tag>answer|ans|final_answer|final|response|conclusion)\s*>(?P<said>.*?)"
    r"(?:<\s*/\s*(?P=tag)\s*>|\Z)",
    re.IGNORECASE | re.DOTALL,
)


def answer_of(reply: str) -> str:
    """What a model says in a reply: without thoughts, marks of turns and a tag round the answer.

    A thought that is closed without having been opened began with the reply. One that is opened and
    never closed was cut off, so there is no answer. Of several tagged answers that differ none is
    preferred: all of them stay.

    >>> answer_of("<think>Left? No.</think> Right."), answer_of("Left? No.</think>Right.")
    ('Right.', 'Right.')
    >>> answer_of("<think>It could be the left one, or")
    ''
    """
    text = _OTHER_TURN.sub("", reply.strip())
    # Up to the last mark that closes: so each that opens finds its end, and the time is linear.
    closed = max((mark.end() for mark in _DETAILS_END.finditer(text)), default=0)
    text = _EMPTY_THOUGHT.sub("", _WHOLE_THOUGHT.sub("", text[:closed]) + text[closed:])
    said, thinking, end = "", False, 0
    for mark in _thought_marks(text):
        if not thinking:
            said += text[end : mark.start()]
        if mark["close"] and not thinking:
            said = ""
        thinking, end = mark["open"] is not None, mark.end()
    said = _TURN_MARKS.sub("", said + ("" if thinking else text[end:])).strip()
    tagged = {each["said"].strip() for each in _ANSWER_TAG.finditer(said)}
    if len(tagged) == 1:
        return tagged.pop()
    return "" if thinking else said


def answer_start(reply: str) -> int:
    """Where the answer begins in a reply that is being written; its length inside a thought.

    >>> answer_start("<think>x</think>Yes"), answer_start("<think>x"), answer_start("Yes")
    (16, 8, 0)
    """
    marks = _thought_marks(reply)
    if not marks:
        return 0
    return len(reply) if marks[-1]["open"] else marks[-1].end()


def has_thoughts(reply: str) -> bool:
    """Whether a reply holds thoughts, or what is left of them.

    >>> has_thoughts("Hm.</think>Yes"), has_thoughts("I think so")
    (True, False)
    """
    return bool(_thought_marks(reply.strip())) or _EMPTY_THOUGHT.search(reply) is not None


def _thought_marks(reply: str) -> list[re.Match[str]]:
    """Every mark that opens or closes a thought; closing words only where one is open."""
    marks: list[re.Match[str]] = []
    for mark in _THOUGHT_MARKS.finditer(reply):
        if not mark["words"] or (marks and marks[-1]["open"]):
            marks.append(mark)
    return marks


# Chat text -> token ids and labels.
#
# The text of a conversation is tokenised once; labels follow from character offsets, so they cannot
# drift. (The original tokenises header and messages separately and drifts by a token per message.)


IGNORE_INDEX = -100
"""Label of a position that is not learned from: torch's `ignore_index`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as token ids.

    `labels` equals `input_ids` where the text is supervised and is -100 elsewhere; both have the
    same length. `truncated` says that the end was cut off.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool

    @property
    def num_supervised(self) -> int:
        """Tokens that are learned from; zero makes a batch of this record useless."""
        return sum(label != IGNORE_INDEX for label in self.labels)


def encode_segments(
    tokenizer: Any, segments: Sequence[Segment], num_image_tokens: int
) -> tuple[list[int], list[int]]:
    """Tokenise the joined segments once.

    Args:
        tokenizer: a fast Hugging Face tokenizer that knows the image tokens.
        segments: text with single image placeholders.
        num_image_tokens: visual tokens of one image; each placeholder becomes so many.

    Returns:
        Ids (beginning-of-sequence token first) and labels.
    """
    text = "".join(segment.text for segment in segments)
    supervised: list[bool] = []
    for segment in segments:
        supervised += [segment.supervised] * len(segment.text)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    patch = tokenizer.convert_tokens_to_ids(IMAGE_PATCH)
    ids = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    labels = [IGNORE_INDEX] * len(ids)
    for token, (start, _) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        repeat = num_image_tokens if token == patch else 1
        ids += [token] * repeat
        labels += [token if supervised[start] else IGNORE_INDEX] * repeat
    return ids, labels


def encode_conversation(
    tokenizer: Any, record: Record, template: str, num_image_tokens: int, max_length: int
) -> Encoded:
    """The training sequence of a record; the answers and their end markers are supervised.

    Args:
        max_length: longest sequence in tokens; longer ones are cut at the end.

    Raises:
        DataError: the images of the record do not fit into `max_length` tokens.
    """
    ids, labels = encode_segments(
        tokenizer, conversation_segments(record, template), num_image_tokens
    )
    cut = ids[max_length:]
    if tokenizer.convert_tokens_to_ids(IMAGE_PATCH) in cut:
        raise DataError(
            f"Record {record.id!r}: question and image need more than {max_length} tokens.",
            "Raise `text.max_length` or shorten the question.",
        )
    return Encoded(ids[:max_length], labels[:max_length], truncated=bool(cut))


def encode_prompt(
    tokenizer: Any,
    turns: Sequence[Turn],
    template: str,
    num_image_tokens: int,
    num_images: int,
    options: Sequence[str] | None = None,
) -> list[int]:
    """The ids after which the model answers the last user turn.

    They are the beginning of `encode_conversation` of the same turns.
    """
    text = prompt_text(turns, template, num_images, options)
    return encode_segments(tokenizer, [Segment(text, False)], num_image_tokens)[0]


def alignment_text(answers: Sequence[str]) -> str:
    """All answers of a conversation as the one text that is pooled for alignment (original)."""
    return without_image_tokens(". ".join(answers).replace("\n", ""))


def encode_text(tokenizer: Any, text: str, max_length: int) -> list[int]:
    """A text alone, beginning-of-sequence token first, cut after `max_length` tokens."""
    return encode_segments(tokenizer, [Segment(text, False)], 0)[0][:max_length]
