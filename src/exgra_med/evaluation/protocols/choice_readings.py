"""Multiple choice: how each public evaluator finds the chosen option in free text.

All of them take the answer as it was written, thoughts included, and none of them moves the options
round (circular evaluation) for these data sets. What they do where no option is found differs most:
wrong (MedXpertQA, VLMEvalKit without its judge), the most similar text (OmniMedVQA, PMC-VQA,
MedEvalKit), or a letter drawn blindly (MMMU and lmms-eval). A drawn letter counts here with its
expected value, one over the number of options, so that the number is the same each time; a single
run of the published code lies around it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

from exgra_med.data.chat_template import answer_of
from exgra_med.evaluation.answers import Question
from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols.medevalkit import NO_BOX, boxed, parsed, tagged
from exgra_med.evaluation.protocols.protocol import Judge, Kind, Mean, Reading, Typing
from exgra_med.evaluation.tasks.multiple_choice import (
    choose_by_similarity,
    choose_strictly,
    right_option,
)
from exgra_med.llm.prompt import load_prompt

BY_OPTIONS = Typing(
    "a question is closed where it lists options",
    lambda each: "closed" if len(each.options) > 1 else "open",
)


def _dataset(question: Question, _: Kind) -> str:
    return str(question.meta.get("dataset") or "")


OVER_DATASETS = Mean("mean of the scores of the collected data sets", _dataset)


def _right(question: Question) -> int | None:
    return right_option(question.options, question.answer, question.meta.get("answer_index"))


def _hit(case: Case, place: int | None) -> float:
    return float(place is not None and place == _right(case.question))


def _letter(question: Question) -> str | None:
    place = _right(question)
    return None if place is None or place >= len(ascii_uppercase) else ascii_uppercase[place]


def _labelled(options: Sequence[str], form: str) -> list[str]:
    """The options as they are listed, such as "A. CT" for the form "{}. {}"."""
    return [form.format(*each) for each in zip(ascii_uppercase, options, strict=False)]


# This project.


def _strict(case: Case) -> float:
    options, right = case.question.options, _right(case.question)
    chosen = choose_strictly(answer_of(case.answer), options)
    if chosen is None or right is None:
        return 0.0
    # A data set can list the right option twice.
    return float(options[chosen].strip().lower() == options[right].strip().lower())


STRICT = Reading(
    "right where the answer chooses exactly one option, by its letter or its words", _strict
)


# The most similar option, by difflib (OmniMedVQA, PMC-VQA).


def _omnimedvqa(case: Case) -> float:
    place = choose_by_similarity(case.answer, case.question.options)
    return float(place is not None and case.question.options[place] == case.question.answer)


def _pmc_vqa_td(case: Case) -> float:
    # The authors' model writes the whole question again, of which the last character is the answer.
    listed = _labelled(case.question.options, " {}:{}")
    return _hit(case, choose_by_similarity(case.answer[-1:], listed))


def _pmc_vqa_te(case: Case) -> float:
    return _hit(case, choose_by_similarity(case.answer, ascii_uppercase[:4]))


SIMILAR_TEXT = Reading(
    "the option whose characters are most like the answer (difflib); its text must equal the "
    "reference, in case and full stop too",
    _omnimedvqa,
)
LAST_CHARACTER = Reading(
    "the listed option (“ A:text”) most like the last character of the answer (difflib)",
    _pmc_vqa_td,
)
SIMILAR_LETTER = Reading(
    "the letter of A to D most like the answer (difflib): the first of them that stands in it as a "
    "capital, inside a word too",
    _pmc_vqa_te,
)


# The first letter behind a phrase (MedXpertQA).

_NO_LETTERS = ("I understand", "A through J", "A through E", "A through D")


def _medxpertqa(case: Case) -> float:
    letters = ascii_uppercase[: len(case.question.options)]
    said = case.answer.strip()
    for phrase in (f"Therefore, among A through {letters[-1:]}, the answer is", " answer is "):
        if phrase in said:
            said = said.split(phrase)[1].strip()
            break
    for phrase in _NO_LETTERS:
        said = said.replace(phrase, "")
    found = re.search(rf"\b[{letters}]\b", said) if letters else None
    return _hit(case, letters.index(found[0]) if found else None)


FIRST_LETTER = Reading(
    "the first capital letter of an option that stands as a word, behind “Therefore, among A "
    "through E, the answer is” or “ answer is ” where the answer has one of them; an article “A” "
    "is such a letter",
    _medxpertqa,
)


# Letters by patterns, in this order, else the text of an option, else a blind letter (MMMU).


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a letter looks, with `{}` for the letter."""

    found: str
    last: str
    """Of several letters that one counts whose `last` stands last; the first where none does."""


_IN_BRACKETS, _BETWEEN_BLANKS = Pattern("({})", "({})"), Pattern(" {} ", " {} ")
MMMU_PATTERNS = (_IN_BRACKETS, _BETWEEN_BLANKS)
LMMS_EVAL_PATTERNS = (_IN_BRACKETS, Pattern("{} ", " {} "), Pattern("{}.", " {} "))
_FEWEST_WORDS = 6
"""An answer of fewer words is not searched for the text of an option."""


def letter_by_patterns(
    text: str, options: Sequence[str], patterns: Sequence[Pattern]
) -> int | None:
    """The place of the option that MMMU's rules find; None where they draw one blindly."""
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    letters = ascii_uppercase[: len(options)]
    for pattern in patterns:
        found = [letter for letter in letters if pattern.found.format(letter) in text]
        if found:
            last = max(found, key=lambda letter: text.rfind(pattern.last.format(letter)))
            return letters.index(last)
    if len(text.split()) < _FEWEST_WORDS:
        return None
    ends = [text.lower().rfind(option.lower()) for option in options]
    return ends.index(max(ends)) if ends and max(ends) >= 0 else None


def _by_patterns(
    patterns: Sequence[Pattern], clean: Callable[[str], str] = str
) -> Callable[[Case], float]:
    def value(case: Case) -> float:
        options = case.question.options
        place = letter_by_patterns(clean(case.answer), options, patterns)
        if place is None:
            return 0.0 if _right(case.question) is None else 1 / len(options)
        return _hit(case, place)

    return value


_BLIND = (
    "; else, in six words or more, the option whose text stands last; else a letter drawn blindly"
)
MMMU_LETTERS = Reading(
    f"the last letter in brackets; else the last between blanks{_BLIND}",
    _by_patterns(MMMU_PATTERNS),
    draws=True,
)
LMMS_EVAL_LETTERS = Reading(
    "the last letter in brackets; else one before a blank, at the end of a word too; else one "
    f"before a full stop{_BLIND}",
    _by_patterns(LMMS_EVAL_PATTERNS),
    draws=True,
)

# MMMU's questions without options.

_KEYS = ("could be", "so", "is", "thus", "therefore", "final", "answer", "result")
"""What is said behind the last of each, and a blank, may be the answer."""
# No number begins inside another one; without saying so, a long one takes its length squared.
_WHOLE, _DECIMALS, _POWER = r"(?<!\d)\d+", r"\.\d+", r"e[+-]?\d+"
_NUMBERS = tuple(
    re.compile(f"-?{form}", re.IGNORECASE)
    for form in (
        r"\b\d\d?\d?(?:,\d\d\d)+\b",
        f"{_WHOLE}(?:{_DECIMALS})?{_POWER}",
        rf"(?:(?:{_WHOLE})?{_DECIMALS}|{_WHOLE}\b)(?!{_POWER}|,|\d)",
    )
)
"""With commas between thousands; with a power of ten; plain."""


def _comparable(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        # A single letter must stand beside a blank.
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _key_phrases(text: str) -> list[str]:
    """What stands behind the last of each key word, the shortest for each line."""
    text = text.strip().strip(".").lower()
    lines = text.split("\n")
    phrases = []
    for number, line in enumerate(lines):
        keys = [f"{key} " for key in _KEYS] + (["="] if number == len(lines) - 1 else [])
        shortest = ""
        for behind in (line.split(key)[-1].strip() for key in keys if key in line):
            if not shortest or len(behind) < len(shortest):
                shortest = behind
        if shortest and shortest not in tuple(":,.!?;'"):
            phrases.append(shortest)
    return phrases or [text]


def _mmmu_open(case: Case) -> float:
    phrases = _key_phrases(case.answer)
    numbers = [each for text in phrases for form in _NUMBERS for each in form.findall(text)]
    said = [value for text in phrases + numbers for value in _comparable(text)]
    wanted = _comparable(case.question.answer)
    return float(
        any(
            value in wanted
            if isinstance(value, float)
            else any(isinstance(each, str) and each in value for each in wanted)
            for value in said
        )
    )


MMMU_OPEN = Reading(
    "right where the reference stands in what follows “is”, “answer”, “=” and the like, or equals "
    "a number there to two places",
    _mmmu_open,
)
NEVER_RIGHT = Reading(
    "never right: the published code compares the reference with single characters of the answer",
    lambda case: 0.0,
)


# VLMEvalKit: rules, and a language model for what they cannot read.

_PUNCTUATION = dict.fromkeys(map(ord, ".()[],:;!*#{}"), " ")
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
"""What its code looks for in an answer."""
_STATED = re.compile(r"answer\s+is\s+\**([a-d])", re.IGNORECASE)
_LAST_WORDS = 4
"""The only letter must stand among so many words at the end."""
_NO_OPTION = "Z"


def vlmevalkit_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter that VLMEvalKit's rules read; None where they ask their judge.

    A "Z" by itself, and a refusal in one of four wordings, are the letter Z: no option.
    """
    letters = ascii_uppercase[: len(options)]
    if "Failed to obtain answer via API" not in text:
        if any(refusal in text for refusal in _REFUSALS):
            return _NO_OPTION
        said = text.translate(_PUNCTUATION).split()
        found = [letter for letter in letters if letter in said]
        if len(found) == 1 and said.index(found[0]) >= len(said) - _LAST_WORDS:
            return found[0]
        if not found and _NO_OPTION in said:
            return _NO_OPTION
        stated = _STATED.search(text)
        if stated and stated[1].upper() in letters:
            return stated[1].upper()
    lower = text.lower()
    if len(lower) > 2 * sum(map(len, options)):
        return None
    named = [
        letter
        for letter, option in zip(ascii_uppercase, options, strict=False)
        if option.lower() in lower
    ]
    return named[0] if len(named) == 1 else None


def _vlmevalkit_options(question: Question) -> tuple[str, ...]:
    """Those of the question; an open one becomes a choice of its reference and all else."""
    return question.options if len(question.options) > 1 else (question.answer, "Other Answers")


def _vlmevalkit_right(question: Question) -> str | None:
    if len(question.options) > 1:
        return _letter(question)
    # The right letter is read from the reference, so one of a capital letter is its own.
    return question.answer if question.answer in tuple(ascii_uppercase) else "A"


def _vlmevalkit(case: Case) -> float:
    read = vlmevalkit_letter(case.answer, _vlmevalkit_options(case.question))
    return float(read is not None and read == _vlmevalkit_right(case.question))


def _vlmevalkit_told(case: Case) -> dict[str, str] | None:
    options = _vlmevalkit_options(case.question)
    if vlmevalkit_letter(case.answer, options) is not None:
        return None
    listed = "\n".join(_labelled(options, "{}. {}"))
    return {"question": case.question.text, "options": listed, "answer": case.answer}


def _vlmevalkit_verdict(reply: str, case: Case) -> float | None:
    read = vlmevalkit_letter(reply, _vlmevalkit_options(case.question))
    return None if read is None else float(read == _vlmevalkit_right(case.question))


_MATCHER = Judge(
    "vlmevalkit-choices",
    "gpt-4o-mini",
    load_prompt("judge-vlmevalkit-choices").text,
    _vlmevalkit_told,
    _vlmevalkit_verdict,
    published="vlmeval/dataset/utils/multiple_choice.py, build_prompt",
)
_VLMEVALKIT = (
    "the only letter that stands as a word, among the last four words; else the letter behind "
    "“answer is”; else the only option whose text stands in an answer of at most twice the "
    "options' length"
)
_AS_OPTIONS = "the same, as if the reference were option A and “Other Answers” option B"
VLMEVALKIT_LETTER = Reading(f"{_VLMEVALKIT}; else wrong", _vlmevalkit)
VLMEVALKIT_OPEN = Reading(f"{_AS_OPTIONS}; else wrong", _vlmevalkit)
VLMEVALKIT_JUDGED = Reading(
    f"{_VLMEVALKIT}; else the option that the judge finds most like the answer",
    _vlmevalkit,
    _MATCHER,
)
VLMEVALKIT_OPEN_JUDGED = Reading(
    f"{_AS_OPTIONS}; else the one that the judge finds most like the answer", _vlmevalkit, _MATCHER
)


# MedEvalKit.


def medevalkit_is_right(text: str, listed: Sequence[str], right: str) -> bool:
    """Whether MedEvalKit calls an answer right.

    Args:
        text: the answer.
        listed: the options as they are asked, with their letters.
        right: letter of the right option.
    """
    text, right = text.lower(), right.strip().lower()
    listed = [each.lower() for each in listed]
    letters = ascii_lowercase[: len(listed)]
    paragraphs = text.split("\n\n")
    for part in (paragraphs[0], paragraphs[-1].split(".")[0]):
        if len(part) == 1 and part in letters:
            text = part
            break
    text = parsed(text).lower().strip().replace("\n", "")
    said = text.split(".")[0].split(":")[-1]
    if said == right:
        return True
    if len(said) == 1 and said in letters:
        return listed[letters.index(said)] == right
    if said in listed:
        return right in tuple(letters) and said == listed[letters.index(right)]
    # An answer like none of them is taken for the first option.
    place = choose_by_similarity(text, listed) or 0
    return right in (letters[place], listed[place])


def _letter_or_text(question: Question) -> str:
    """Of equal options the last is the right one; a reference that equals none stays a text."""
    listed = zip(ascii_uppercase, question.options, strict=False)
    equal = [letter for letter, option in listed if option == question.answer]
    return equal[-1] if equal else question.answer


def _medevalkit(
    form: str, clean: Callable[[str], str], reference: Callable[[Question], str | None]
) -> Callable[[Case], float]:
    def value(case: Case) -> float:
        right = reference(case.question)
        listed = _labelled(case.question.options, form)
        return float(right is not None and medevalkit_is_right(clean(case.answer), listed, right))

    return value


def _answer(text: str) -> str:
    return tagged(text, "answer")


def _medevalkit_mmmu(text: str) -> str:
    text = _answer(text)
    inside = boxed(text)
    text = text if inside == NO_BOX else inside
    has_open_box = "<answer>" not in text and "\\boxed" in text
    return NO_BOX if has_open_box else text.strip()


_MEDEVALKIT = (
    "a letter alone in the first paragraph or at the start of the last; else what stands in "
    "a box, in answer tags or behind “answer is”, up to the first full stop and behind the last "
    "colon, if it is a letter or a listed option; else the listed option most like it (difflib); "
    "an answer like none of them, an empty one too, counts as the first option"
)
MEDEVALKIT_OMNIMEDVQA = Reading(
    f"{_MEDEVALKIT}; a reference that differs from its option in case or full stop has no letter",
    _medevalkit("{}. {}", _answer, _letter_or_text),
)
MEDEVALKIT_TAGGED = Reading(
    f"in answer tags where there are some: {_MEDEVALKIT}",
    _medevalkit("{}. {}", _answer, _letter),
)
MEDEVALKIT_AS_LISTED = Reading(_MEDEVALKIT, _medevalkit(" {}:{}", str, _letter))
MEDEVALKIT_MMMU = Reading(
    f"in answer tags or a box where there is one: {MMMU_LETTERS.words}",
    _by_patterns(MMMU_PATTERNS, _medevalkit_mmmu),
    draws=True,
)
