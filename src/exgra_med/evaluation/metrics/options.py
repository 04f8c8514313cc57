"""Which options a closed question has, and which of them an answer names.

An option is a label with the word sequences that name it. Options come from the record, from the
note in the published questions (`(Answer with either "left" or "right").`), from the question
itself ("left or right?"), and from words that exclude one another.
"""

import re

from exgra_med.data.sources.rows import closed_options
from exgra_med.evaluation.normalise import positions, words

Options = dict[str, tuple[tuple[str, ...], ...]]

YES = "yes"
NO = "no"
ABSTAIN = "abstain"


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(words(phrase.strip()) for phrase in text.split("|"))


YES_NO: Options = {
    YES: _phrases("yes|yeah|yep|是|是的|有|存在|包含|能|可以|会|对|正确"),
    NO: _phrases("no|nope|不是|没有|不存在|不包含|不能|不可以|不会|不对|不正确|否|没|无|不"),
}
ABSTENTIONS = _phrases(
    "cannot tell|can't tell|cannot determine|can't determine|cannot be determined|not sure"
    "|can't be determined|unsure|unclear|unknown|uncertain|don't know|do not know|not known"
    "|not possible to|impossible to|unable to|not enough information|no way to tell|can not tell"
    "|cannot answer|can't answer|cannot say|can't say|can not be determined"
    "|无法确定|不确定|不知道|无法判断|不清楚|不能确定|不能判断"
)
# Where neither record nor question names options, these words exclude one another.
_CONTRASTS: tuple[Options, ...] = tuple(
    {" ".join(phrase): (phrase,) for phrase in _phrases(group)}
    for group in (
        "left|right|both|bilateral|unilateral",
        "axial|coronal|sagittal",
        "t1|t2|flair|diffusion",
        "ct|mri|x ray|ultrasound",
        "pa|ap|lateral",
        "male|female",
        "supine|prone|erect",
        "upper|middle|lower",
        "anterior|posterior",
        "normal|abnormal",
        "contrast|non contrast",
        "左|右",
        "正常|不正常|异常",
        "横断面|冠状面|矢状面",
        "高密度|低密度",
    )
)
_CONTRAST_WORDS = tuple(
    frozenset(phrase[0] for phrases in contrast.values() for phrase in phrases)
    for contrast in _CONTRASTS
)
_NOTE = re.compile(r"\(\s*answer with either(.*?)\)\s*\.?", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")
_CHINESE_CHOICE = re.compile(r"([^,，。?？是]+?)还是([^,，。?？]+)")
_NEGATIONS = frozenset({"not", "no", "non", "without", "neither", "不", "没", "无", "非"})


def chosen_options(sequence: tuple[str, ...], options: Options) -> set[str]:
    """Labels that an answer names as whole words.

    Longer names go first and hide what lies inside them ("left lung" hides "left"); a name right
    behind a negation ("not left") is no choice, unless the negation is part of the name.
    """
    present = set(sequence)
    named = [
        (phrase, label)
        for label, phrases in options.items()
        for phrase in phrases
        if phrase and phrase[0] in present
    ]
    taken: set[int] = set()
    chosen: set[str] = set()
    for phrase, label in sorted(named, key=_longest_first):
        for start in positions(sequence, phrase):
            place = set(range(start, start + len(phrase)))
            if place & taken:
                continue
            taken |= place
            if not (start and start - 1 not in taken and sequence[start - 1] in _NEGATIONS):
                chosen.add(label)
    return chosen


def _longest_first(named: tuple[tuple[str, ...], str]) -> int:
    return -len(named[0])


def options_of(reference: str, question: str, given: tuple[str, ...] = ()) -> Options:
    """Options of a closed question whose reference is not yes or no; the reference is always one.

    Args:
        reference: the reference answer.
        question: the question, with or without the published note about its options.
        given: options that the data set lists.
    """
    expected = words(reference)
    listed = given or _options_in_note(question)
    options: Options
    if listed:
        options = {" ".join(words(option)): (words(option),) for option in listed}
    else:
        options = _options_in_question(question, reference)
        for contrast, first_words in zip(_CONTRASTS, _CONTRAST_WORDS, strict=True):
            if not first_words.isdisjoint(expected) and chosen_options(expected, contrast):
                options = options | contrast
    options.pop("", None)
    if len(chosen_options(expected, options)) != 1 and expected:
        options = options | {" ".join(expected): (expected,)}
    return options


def _options_in_note(question: str) -> tuple[str, ...]:
    note = _NOTE.search(question)
    return tuple(_QUOTED.findall(note.group(1))) if note else ()


def _options_in_question(question: str, reference: str) -> Options:
    options: Options = {}
    for option in closed_options(question, reference) or ():
        options[" ".join(words(option))] = (words(option),)
    for choice in _CHINESE_CHOICE.finditer(question):
        for option in choice.groups():
            options[" ".join(words(option))] = (words(option),)
    return options
