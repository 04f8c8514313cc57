"""From a model's text to its answer: cleaned words, without wrappers, and the option they choose.

A score compares words (`words`); a closed question compares options (`read_options`). What is
ambiguous names none or several, and is never guessed.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import dropwhile

from exgra_med.data.chat_template import answer_of
from exgra_med.data.sources.options import closed_options
from exgra_med.reading import value_in

# Sound cleaning of answers for new scores: Unicode-safe, nothing lost silently, versioned.
#
# Raise `NORMALISER_VERSION` whenever a score can change; it is written into every result. Version 1
# stays, so that scores from before can be computed again and explained (scorer `strict-1`).

NORMALISER_VERSION = "2"
OLDER_NORMALISER = "1"

_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
}
_DROPPED_WORDS = frozenset({"a", "an", "the"})
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Numbers keep their decimal point; ideographs and kana are words of one character each, because
# Chinese and Japanese have no blanks; every other run of letters, marks and digits is a word.
_LETTER = rf"(?:(?![{_CJK}])[^\W_]|[\u0300-\u036f])"
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Models trained on the published template repeat the role or start another turn.
_ROLE = re.compile(r"^\s*(?:#{2,}\s*)?(?:assistant|gpt|answer)\s*:\s*", re.IGNORECASE)
_NEXT_TURN = re.compile(r"#{3}.*", re.DOTALL)


def answer_turn(text: str) -> str:
    """The answer without a leading role name ("Assistant:") and without a next turn.

    Where version 1 stops, and `answer_text` begins.
    """
    text = _ROLE.sub("", text, count=1)
    return _NEXT_TURN.sub("", text).strip()


_TOKEN_1 = re.compile(
    rf"\d+(?:\.\d+)?%?(?![^\W_])|[{_CJK}]|(?:(?![{_CJK}])[^\W_]|[\u0300-\u036f]|(?<=\w)['](?=\w))+"
)


def _words_1(text: str) -> tuple[str, ...]:
    """Version 1: every sign but a decimal point and `%` is lost, and so is a single "A"."""
    text = unicodedata.normalize("NFKC", answer_turn(text)).replace("’", "'").casefold()
    text = _THOUSANDS.sub("", text)
    found = (_NUMBERS.get(word, word) for word in _TOKEN_1.findall(text))
    return tuple(word for word in found if word not in _DROPPED_WORDS)


# Version 2 keeps what changes a meaning: signs, comparisons, units, single letters. What is written
# in several ways becomes one: `HER2+` and "HER2 positive", `<5mm` and "less than 5 mm", `±`, units
# spelt out, "grade II" and "grade 2", 1,000 and 1000. Signs that count are moved to characters that
# NFKC leaves nowhere (full-width ones), so that every other `+` and `-` parts words.

_PLUS, _MINUS, _TO = "＋", "－", "–"
_SAME_CHARACTER = str.maketrans(
    {"’": "'", "‘": "'", "⁄": "/", "⩽": "≤", "≦": "≤", "⩾": "≥", "≧": "≥", "∓": "±", "×": "x"}
    | {"✕": "x", "&": " and ", "∕": "/"}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-")
)
_LETTERED = (
    r"vitamin|hepatitis|hep|type|subtype|serotype|group|serogroup|grade|class|stage|category|zone"
    r"|h[a]?emophilia|influenza|flu|protein|immunoglobulin|ig|blood|factor|antigen|chain|toxin"
    r"|option|choice"
)
# "A mass" and "a mass" begin with an article; "vitamin A" and "type a fibres" do not.
_ARTICLE = re.compile(
    r"(?<![^\W_])(?<!['./-])[Aa](?=\s+(?!(?:fib|flutter|wave)\b|(?:pos|neg)(?:itive|ative)?\W*\Z)[^\W_])"
)
_NAMES_A_LETTER = re.compile(rf"\b(?:{_LETTERED})s?\s+\Z", re.IGNORECASE)
_INSIDE_A_SENTENCE = re.compile(r"[^\W_][\s,]*\Z")
_LOOK_BACK = 40
"""Characters before a letter that say whether it is an article."""
_SMALL_WORD = re.compile(r"(?<!\w)[a-z]{4}")
_NUMERALS: dict[str, int] = dict(
    zip("i ii iii iv v vi vii viii ix x xi xii".split(), range(1, 13), strict=True)
)
_UNITS = {
    "mm": "millimeters? millimetres?",
    "cm": "centimeters? centimetres?",
    "m": "meters? metres?",
    "μm": "um micrometers? micrometres? microns?",
    "nm": "nanometers? nanometres?",
    "kg": "kilograms? kgs",
    "g": "grams? gms?",
    "mg": "milligrams? mgs",
    "μg": "mcg ug micrograms?",
    "ng": "nanograms?",
    "l": "liters? litres?",
    "dl": "deciliters? decilitres?",
    "ml": "milliliters? millilitres? cc",
    "μl": "ul microliters? microlitres?",
    "d": "diopters? dioptres?",
    "mmhg": "",
    "hu": "",
    "gy": "",
    "mgy": "",
    "hz": "hertz",
    "mhz": "",
    "kv": "",
    "kvp": "",
    "iu": "",
    "meq": "",
    "mmol": "",
    "t": "tesla",
    "h": "hours? hrs?",
    "min": "minutes? mins?",
    "ms": "milliseconds?",
    "s": "seconds? secs?",
    "y": "years? yrs? yo",
    "bpm": "",
}
_UNIT_NAME = {
    spelling: unit
    for unit, spellings in _UNITS.items()
    for each in (unit, *spellings.split())
    for spelling in ({each.replace("?", ""), re.sub(r".\?", "", each)})
}
_ANY_UNIT = "|".join(sorted(map(re.escape, _UNIT_NAME), key=len, reverse=True))
_MORE_THAN = r"(?:more|greater|larger|bigger|higher|longer|older)"
_LESS_THAN = r"(?:less|fewer|smaller|lower|shorter|younger)"
_PREFIXES = (
    "left|right|mid|pre|post|non|intra|inter|extra|supra|infra|sub|peri|para|endo|epi|micro|macro"
    "|multi|hyper|hypo|upper|lower|inner|outer|short|long|low|high|one|two|first|second|antero"
    "|postero|well|anti|pro"
)
_NUMBER = r"\d+(?:\.\d+)?"
_POWER = rf"{_NUMBER}(?:\^-?\d+)?"
# In this order; each is a pattern on text that is NFKC, case-folded and without articles "a".
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"-+>|=>", " "),
        (r"<\s?/?\s?=", "≤"),
        (r">\s?/?\s?=", "≥"),
        (r"\+\s?/\s?-|\+-(?=\s*\d)|-/\+", "±"),
        (r"(?<!\w)\+ve\b", " positive "),
        (r"(?<!\w)-ve\b", " negative "),
        (r"(?<=\d)\s?(?:percent|per\s+cent|pct)\b", "%"),
        (r"(?<=\d)\s+%", "%"),
        (r"(?<=\d)\s?degrees?\b", "°"),
        (r"(?<=\d)\s+°", "°"),
        (r"°\s*([cf])\b", r"°\1"),
        (r"\bx-?rays?\b", "x ray"),
        (r"\bnoncontrast\b", "non contrast"),
        (r"\bt2[\s-]?star\b|\bt2\s?\*(?!\*)", "t2star"),
        (r"(?<=\d)·(?=\d)", "."),
        (r"(?<=\d),(?=\d{3}(?!\d))", ""),
        (rf"(?<![\d.,])(\d+),(\d\d?)(?=\s?(?:{_ANY_UNIT}|%)(?![^\W_]))", r"\1.\2"),
        (r"(?<![\w.])\.(?=\d)", "0."),
        (rf"\b{_LESS_THAN}\s+than\s+or\s+equal\s+to\s+(?=\d)", "≤"),
        (rf"\b{_MORE_THAN}\s+than\s+or\s+equal\s+to\s+(?=\d)", "≥"),
        (rf"\b(?:no|not)\s+{_MORE_THAN}\s+than\s+(?=\d)|\b(?:at\s+most|up\s+to)\s+(?=\d)", "≤"),
        (rf"\b(?:no|not)\s+{_LESS_THAN}\s+than\s+(?=\d)|\bat\s+least\s+(?=\d)", "≥"),
        (rf"\b{_LESS_THAN}\s+than\s+(?=\d)", "<"),
        (rf"\b{_MORE_THAN}\s+than\s+(?=\d)", ">"),
        (r"\bplus\s+(?=\d)", _PLUS),
        (r"\bminus\s+(?=\d)", _MINUS),
        (r"([<>≤≥±])\s+(?=[+-]?\d)", r"\1"),
        # A sign in front of a number, or alone behind the beginning.
        (r"(?:^|(?<=[\s(\[=:<>≤≥±/,]))\+(?=\d)|^\+\s+(?=\d)", _PLUS),
        (r"(?:^|(?<=[\s(\[=:<>≤≥±/,]))-(?=\d)|^-\s+(?=\d[^\n]*\Z)", _MINUS),
        # Ranges, ratios, sums and dimensions of plain numbers.
        (r"(?<=\d)-\s+(?=to\s+\d)", " "),
        (rf"(?<![^\W_])({_NUMBER})(?:-\s*|\s+-\s+|\s+to\s+)(?={_NUMBER}(?![^\W_]))", rf"\1{_TO}"),
        (rf"(?<![^\W_])({_NUMBER})\s?([/:+])\s?(?={_NUMBER}(?![^\W_]))", r"\1\2"),
        (rf"(?<![^\W_])({_NUMBER})\s?x\s?(?={_NUMBER})", r"\1x"),
        (r"(?<=\d)\+(?=\d)", _PLUS),
        # Signs behind a word, or alone: positive and negative. A hyphen that waits for the word of
        # a later one ("left- and right-sided") is none.
        (r"^[\s(\[]*\+[\s)\].]*$", " positive "),
        (r"^[\s(\[]*-[\s)\].]*$", " negative "),
        (r"(?<=[^\W_])\+(?=\w+[+-](?!\w))", " positive "),
        (r"(?<=\w)\s*[(\[]\s*\+\s*[)\]]", " positive "),
        (r"(?<=\w)\s*[(\[]\s*-\s*[)\]]", " negative "),
        (r"(?<=[^\W_])\s?\+(?=\s*(?:$|[.,;:!?)\]\n\"']))", " positive "),
        (r"(?<=[^\W_])\+(?=[\s/-])", " positive "),
        (
            r"(?<=[^\W_])-(?=\s*(?:,|and|or|to|/)\s+(?:\w+\s+){0,2}\w+-"
            r"(?!positive|negative|pos\b|neg\b)[^\W\d_]{4})",
            " ",
        ),
        (rf"\b({_PREFIXES})-(?=\s*(?:,|and|or|to)\s)", r"\1 "),
        (r"(?<=[^\W_])-(?=\s+(?:and|or)\s)", " negative "),
        (r"(?<=[^\W_])-(?=\s*(?:$|[.,;:!?)\]\n\"'/]))", " negative "),
        (r"(?:(?<=\d)|(?<=\b[^\W\d_][^\W\d_]))(?:-(?=\s)|\s-(?=\s*(?:$|[.,;)\]])))", " negative "),
        (r"(?<=\b[^\W\d_])(?:-(?=\s)|\s-(?=\s*(?:$|[.,;)\]])))", " negative "),
        (r"\bpos\b", "positive"),
        (r"\bneg\b", "negative"),
    )
)
_HAS_DIGIT = re.compile(r"\d")
_LETTERS_ONLY = re.compile(r"(?:[^\W\d_]|[\s.,;:!?'\"])*")
# Every other pattern needs a digit or a sign, so it cannot change such a text.
_OF_LETTERS = "xray noncontrast pos neg"
_REWRITES_OF_LETTERS = tuple(each for each in _REWRITES if each[0].search(_OF_LETTERS))
_NUMERAL_BEHIND = re.compile(
    r"\b((?:grade|stage|type|class|phase|figo|nyha|category|factor|nerves?|cn|segment|zone|level"
    r"|degree|group|mallampati|lefort|le\s+fort)s?)[\s-]+"
    rf"({'|'.join(sorted(_NUMERALS, key=len, reverse=True))})([a-d]?\d?)\b"
)
_UNIT_BEHIND = re.compile(rf"(?<=\d)\s?({_ANY_UNIT})(?![^\W_])")
_PLAIN_NUMBER = re.compile(_NUMBER)
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_NUMBERS)})\b")
_TOKEN_2 = re.compile(
    rf"[<>≤≥±]*[{_PLUS}{_MINUS}]?{_POWER}(?:[/:x{_TO}{_PLUS}]{_POWER})*"
    rf"(?:[%‰]|°[cf]?)?(?!{_LETTER})"
    rf"|[{_CJK}]|{_LETTER}(?:{_LETTER}|['](?=[^\W_])(?![{_CJK}]))*"
    r"|[<>≤≥±↑↓♂♀]|\+\++"
)


_RUN = re.compile(r"([^\w\s])\1{8,}")


def _even(text: str) -> str:
    """Without blanks, empty lines and runs of one mark that say nothing.

    A model that has lost its way writes thousands of them, over which no pattern should wander.
    """
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return _RUN.sub(lambda run: run[1] * 8, "\n".join(filter(None, lines)))


def _words_2(text: str) -> tuple[str, ...]:
    """Version 2; see above."""
    # What NFKC would join to the digit before it: powers of ten, fractions, blanks of thousands.
    if _HAS_DIGIT.search(text):
        text = re.sub(r"(?<=\d)[⁺⁻]?[⁰¹²³⁴-⁹]+", lambda found: f"^{found[0]}", text)
        text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
        text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", text)
    text = _even(unicodedata.normalize("NFKC", text).translate(_SAME_CHARACTER))
    if _HAS_DIGIT.search(text):
        text = re.sub(r"(?<=\d)\s?([nmμ])M\b", r" \1mol/l", text)
    text = _without_articles(text).casefold()
    text = _NUMBER_WORD.sub(lambda each: _NUMBERS[each[0]], text)
    text = _NUMERAL_BEHIND.sub(lambda each: f"{each[1]} {_NUMERALS[each[2]]}{each[3]}", text)
    found = (word for word in _TOKEN_2.findall(_rewritten(text)) if word not in ("an", "the"))
    return tuple(
        word if word[0].isalpha() else _PLAIN_NUMBER.sub(_without_padding, word) for word in found
    )


def _rewritten(text: str) -> str:
    """Text in which what is written in several ways became one.

    Most answers hold neither a digit nor a sign. They need few of the patterns, which are twenty
    times as fast without the others.
    """
    if _LETTERS_ONLY.fullmatch(text):
        rewrites = _REWRITES_OF_LETTERS
    else:
        rewrites = _REWRITES
        text = _UNIT_BEHIND.sub(lambda each: f" {_UNIT_NAME[each[1]]}", text)
    for pattern, by in rewrites:
        text = pattern.sub(by, text)
    return text


def _without_padding(number: re.Match[str]) -> str:
    """The number without zeros that say nothing: `05.10` is `5.1`."""
    whole, _, part = number[0].partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    return f"{whole}.{part}" if part else whole


def _without_articles(text: str) -> str:
    """Without the article "a"; a letter A that names something stays.

    It names something behind "vitamin", "type" and the like, in front of no word, and as a capital
    inside a sentence that has small words.
    """
    has_small_words = _SMALL_WORD.search(text) is not None

    def keep(found: re.Match[str]) -> str:
        before = text[max(0, found.start() - _LOOK_BACK) : found.start()]
        is_name = has_small_words and _INSIDE_A_SENTENCE.search(before) and found[0] == "A"
        return found[0] if is_name or _NAMES_A_LETTER.search(before) else ""

    return _ARTICLE.sub(keep, text)


@lru_cache(maxsize=65_536)
def words(text: str, version: str = NORMALISER_VERSION) -> tuple[str, ...]:
    """Comparable words of a text: case-folded NFKC, number words as digits, Chinese by character.

    >>> words("The X-ray, 3.5cm, HER2-"), words("HER2-", version="1")
    (('x', 'ray', '3.5', 'cm', 'her2', 'negative'), ('her2',))
    """
    return _words_1(text) if version == OLDER_NORMALISER else _words_2(text)


_LIST = re.compile(r"[,;、，；\t]|\band\b|和", re.IGNORECASE)


def items(text: str, version: str = NORMALISER_VERSION) -> frozenset[tuple[str, ...]]:
    """The parts of a list answer ("Liver, Heart and Spleen") as a set: order does not count."""
    if version == OLDER_NORMALISER:
        text = answer_turn(text)
    parts = (words(part, version) for part in _LIST.split(_THOUSANDS.sub("", text)))
    return frozenset(part for part in parts if part)


def positions(sequence: tuple[str, ...], phrase: tuple[str, ...]) -> list[int]:
    """Every index at which the phrase begins in the sequence; none for an empty phrase."""
    length = len(phrase)
    starts = range(len(sequence) - length + 1) if length else ()
    return [start for start in starts if sequence[start : start + length] == phrase]


# Which options a closed question has, and which of them an answer names.
#
# An option is a label with the word sequences that name it. Options come from the record, from the
# note in the published questions (`(Answer with either "left" or "right").`), from the question
# itself ("left or right?"), and from words that exclude one another.

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
_DENIALS = tuple(
    (is_, *denial.split())
    for is_ in ("is", "was", "be", "seems")
    for denial in (
        "wrong", "incorrect", "unlikely", "less likely", "excluded", "ruled out", "not correct",
        "not right", "not likely", "not the answer",
    )
)  # fmt: skip
_NEGATIONS = frozenset({"not", "no", "non", "without", "neither", "不", "没", "无", "非"})


def chosen_options(
    sequence: tuple[str, ...], options: Options, denials: Sequence[tuple[str, ...]] = ()
) -> set[str]:
    """Labels that an answer names as whole words.

    Longer names go first and hide what lies inside them ("left lung" hides "left"); a name right
    behind a negation ("not left") is no choice, unless the negation is part of the name; nor is one
    right in front of one of the `denials`.
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
    for phrase, label in sorted(named, key=lambda each: -len(each[0])):
        for start in positions(sequence, phrase):
            place = set(range(start, start + len(phrase)))
            if place & taken:
                continue
            taken |= place
            behind = sequence[start + len(phrase) :]
            if any(behind[: len(denial)] == denial for denial in denials):
                continue
            if not (start and start - 1 not in taken and sequence[start - 1] in _NEGATIONS):
                chosen.add(label)
    return chosen


# From what a model wrote to its answer.
#
# First everything goes that is wrapped round an answer; then what the reply itself marks as its
# answer ("The answer is ...", a box) stands for the whole. Whether a letter is a letter the options
# decide: "E. coli" is a text where it is an option, and "B" is one where an option is called "B".

# A heading of Markdown begins a line; a next turn follows the answer, or names its role.
_HEADING = re.compile(
    r"^#{1,6}[ ]*(?:final\s+|correct\s+)?answer\s*:?\s*", re.IGNORECASE | re.MULTILINE
)
_AFTER_TURN = re.compile(
    r"(?:(?<=[^\s#])[^\S\n]*#{3}|#{3}\s*(?:human|user|assistant|response|question)\b).*|#{3}\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_FENCE = re.compile(r"\A```[\w-]*\n?(.*?)\n?```\Z", re.DOTALL)
_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")
_TEX = re.compile(r"\\(?:text(?:bf|rm|it)?|math(?:bf|rm|it)|boldsymbol)\s*\{([^{}]*)\}")
_BOX = re.compile(r"\\f?boxed\s*\{([^{}]*)\}")
_DOLLARS = re.compile(r"\A(?:\$+|\\[(\[])\s*(.*?)\s*(?:\$+|\\[)\]])\.?\Z", re.DOTALL)
_QUOTE = re.compile(r"\A([\"'`“‘«「『]+)(?P<said>[^\"`“”«»]*?)[\"'`”’»」』]+\.?\Z", re.DOTALL)
_REASON = re.compile(
    r"\n\s*(?:[#*_]*\s*)(?:(?:explanation|reason(?:ing)?|rationale|justification)\b|解释|理由)\s*[:：]?.*",
    re.IGNORECASE | re.DOTALL,
)
_ANSWER_KEYS = (
    "answer", "final_answer", "finalanswer", "correct_answer", "answer_letter", "choice", "option",
    "correct_option", "selected_option", "letter", "label", "prediction", "response",
)  # fmt: skip
_BETTER = r"(?:(?:my|final|correct|best|right|single|most\s+\w+)\s+){0,4}"
_SAID = r"(?P<said>(?:(?!\banswer\b)[^\n])+)"
_IS = r"(?:is|was|would\s+be|should\s+be|must\s+be)\s*(?:[:：]\s*)?"
_STATED = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"(?<![^\W_])(?:the\s+)?{_BETTER}(?:answer|option|choice)\s+{_IS}{_SAID}",
        rf"^[^\w\n]*(?:the\s+)?{_BETTER}(?:answer|ans|choice|option|response|output"
        rf"|prediction|selected|chosen|correct|chosen\s+option)(?:\W*?[:：=]\s*|\s+-\s+){_SAID}",
        rf"[.;]\s+(?:the\s+)?{_BETTER}answer\s*[:：=]\s*{_SAID}",
        rf"(?:答案|选项)\s*(?:应该|应)?\s*(?:是|为|选|[:：])\s*[:：]?\s*{_SAID}",
        r"(?:应该?|故|我)?选(?:择|项)?\s*[:：]?\s*(?P<said>\(?[A-Z]\)?)(?![A-Za-z])",
        # A letter that no word follows: "it is E. coli" names none.
        r"\b(?:choose|select|pick|chose|selected|go(?:ing)?\s+with|it\s+must\s+be|it's|it\s+is)"
        r"\s+(?:option\s+|answer\s+|choice\s+)?"
        r"(?P<said>\(?(?-i:[A-Z])\)?)(?![\w'-])(?!\.?\s+\w)",
    )
)
# What is said of an option in passing counts where no answer is stated.
_FAVOURED = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        r"(?:^|[\s(*])\(?(?:option\s+|answer\s+|choice\s+)?(?P<said>\(?(?-i:[A-Z])\)?)"
        r"\s+is\s+(?:the\s+)?(?:correct|right|best|answer|most\s+\w+)\b",
    )
)
_IN_BRACKETS = re.compile(
    r"\b(?:is|are|was|be)\s+(?:(?:most\s+)?likely\s+|probably\s+)?(?:(?:option|choice|answer)\s+)?"
    r"(?P<said>\((?-i:[A-Z])\)[^\n.;]*)",
    re.IGNORECASE,
)
"""A sentence that ends in an option: "the most likely cause is (C) Cerebral malaria"."""
_DISPLAY = re.compile(r"\\[\[\]]")
"""TeX's marks round a formula on lines of its own, in which some write their answer."""
_LEAD_IN = re.compile(
    r"\A(?:(?:so|thus|hence|therefore|probably|likely|it\s+is|it's|this\s+is|i\s+(?:think|believe)"
    r"(?:\s+(?:that\s+)?(?:it\s+is|it's))?)\s*[,:]?\s+)+(?=\S)",
    re.IGNORECASE,
)


def _unwrapped(text: str) -> str:
    """The text without code fences, emphasis, TeX, quotes and a JSON object round one answer."""
    for _ in range(4):
        before = text
        text = text.strip()
        for pattern, by in (
            (_FENCE, r"\1"),
            (_BOLD, r"\2"),
            (_ITALIC, r"\1"),
            (_TEX, r"\1"),
            (_DOLLARS, r"\1"),
            (_QUOTE, r"\g<said>"),
        ):
            text = pattern.sub(by, text)
        text = _of_json(text)
        if text == before:
            return text
    return text


def _of_json(text: str) -> str:
    """The answer in a JSON object or list of one, or the text itself where it is none."""
    start, end = text.find("{"), text.rfind("}")
    inner = text if text[:1] == "[" and text[-1:] == "]" else text[start : end + 1]
    if not inner or (start < 0 and inner != text) or "\\boxed" in text:
        return text
    value = value_in(inner)
    while isinstance(value, dict) or (isinstance(value, list) and len(value) == 1):
        if isinstance(value, list):
            value = value[0]
            continue
        known = {re.sub(r"\W+", "_", str(key).strip().lower()): value[key] for key in value}
        value = next((known[key] for key in _ANSWER_KEYS if key in known), None)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int | float) else text


def _statements(text: str) -> list[list[str]]:
    """What a reply marks as its answer, each part once, by rank: boxes, sentences, favours."""
    boxed = [each.group(1) for each in _BOX.finditer(_TEX.sub(r"\1", text))]
    ranks = (
        [said for each in boxed for said in _said(_STATED, each) or [each]],
        _said(_STATED, text),
        _said(_FAVOURED, text),
    )
    cleaned = [list(dict.fromkeys(filter(None, map(_unwrapped, rank)))) for rank in ranks]
    return [rank for rank in cleaned if rank]


def _said(patterns: Iterable[re.Pattern[str]], text: str) -> list[str]:
    return [each["said"] for pattern in patterns for each in pattern.finditer(text)]


def _plain_reply(text: str) -> str:
    """A reply without thoughts, roles, next turns, wrappers and a labelled reason below."""
    said = _HEADING.sub("Answer: ", _even(answer_of(text)))
    said = _unwrapped(_DISPLAY.sub("\n", _AFTER_TURN.sub("", _ROLE.sub("", said, count=1))))
    reason = _REASON.search(said)
    # Some give the reason first, and state the answer behind it.
    if reason and not _statements(reason[0]):
        said = said[: reason.start()]
    return said.strip()


@lru_cache(maxsize=65_536)
def answer_text(text: str) -> str:
    """The answer in a reply: thoughts, wrappers, roles and "The answer is" taken off.

    Where a reply states several different answers, all of it stays.

    >>> answer_text("<think>Left?</think> The answer is **right lung**.")
    'right lung.'
    """
    plain = _plain_reply(text)
    for said in _statements(plain)[:1]:
        if len({words(each) for each in said}) == 1:
            return said[0]
    return plain


def read_options(text: str, options: Options, order: Sequence[str] = ()) -> set[str]:
    """The labels that a reply chooses: none where it cannot be read, several where it says several.

    Args:
        text: what the model wrote.
        options: see `Options`.
        order: their labels as the question lists them, for answers by letter.

    >>> coli = {"coli": (("e", "coli"),), "pylori": (("h", "pylori"),)}
    >>> read_options("E. coli", coli, ["coli", "pylori"])
    {'coli'}
    >>> read_options("**B**\\nBecause of its shape.", coli, ["coli", "pylori"])
    {'pylori'}
    """
    plain = _plain_reply(text)
    whole = words(plain)
    exact = {label for label, phrases in options.items() if whole and whole in phrases}
    if exact:
        return exact
    for rank in _statements(plain):
        stated = set().union(*(_read_part(each, options, order) for each in rank))
        if stated:
            return stated
    said = _read_part(plain, options, order)
    if len(said) != 1:
        bracketed = [_read_part(each, options, order) for each in _said((_IN_BRACKETS,), plain)]
        return set().union(*bracketed) or said
    return said


_CLOSERS = r"[)\]}>\"'”’】）]*"
_OPENERS = r"[(\[{<\"'“‘【（]*"
_NAMED = r"(?:(?:option|choice|answer)\s+)?"
_BARE_LETTER = re.compile(
    rf"\W*{_NAMED}{_OPENERS}([A-Za-z]){_CLOSERS}(?:选项)?[^\w+−–-]*", re.IGNORECASE
)
_FIRST_LETTER = re.compile(
    rf"\A\W*?{_NAMED}{_OPENERS}([A-Za-z])(?:(?P<end>{_CLOSERS}\s*(?:\n|\Z|[。；，]|[,;]?\s*"
    r"(?:because|since|as|due|given|based|which|for)\b)))",
    re.IGNORECASE,
)
_LETTER_AND_TEXT = re.compile(
    rf"\A\W*?{_NAMED}{_OPENERS}([A-Za-z])(?:{_CLOSERS}\s*[.:,)\]、：-]+|{_CLOSERS[:-1]}+)\s*(?=\S)",
    re.IGNORECASE,
)
_LETTERS = re.compile(
    rf"\A\W*(?:both|either)?\s*{_NAMED}\(?([A-Z])\)?\s*(?:,|/|&|;|\band\b|\bor\b)+\s*"
    rf"(?:and\s+|or\s+)?{_NAMED}\(?([A-Z])\)?(?![\w'-])"
)
_WIDE = re.compile(r"[\uff01-\uff5e\u24b6-\u24e9]")  # and letters in circles
_SENTENCE = re.compile(r"(?<=[.;!?。；])\s+|\n+|(?<=[。；])")
_CLAUSE = re.compile(r"[.,;:!?。，；：]+\s*|\n+|\s+[-–—]\s+")


def _read_part(text: str, options: Options, order: Sequence[str]) -> set[str]:
    """As `read_options`, of one statement."""
    text = _WIDE.sub(
        lambda each: unicodedata.normalize("NFKC", each[0]), _LEAD_IN.sub("", text.strip())
    )
    whole = words(text)
    named = {label for label, phrases in options.items() if whole and whole in phrases}
    if named:
        return named
    lines = [line for line in text.split("\n") if line.strip()]
    # A sentence, or for yes and no a clause, that is an option and nothing else says the answer;
    # what stands round it is a reason.
    clauses = _CLAUSE if {YES, NO} <= options.keys() else _SENTENCE
    parts = [words(part) for part in clauses.split(text)]
    exact = {
        label for label, phrases in options.items() for part in parts if part and part in phrases
    }
    known = {phrase for phrases in options.values() for phrase in phrases}
    letters = {
        letter
        for line in lines
        if words(line) not in known
        for letter in _letter(_BARE_LETTER.fullmatch(line), order)
    }
    alone = {label for letter in letters for label in _of_letter(letter, options, order)}
    lettered = [
        (letter, line[found.end() :])
        for line in lines
        if (found := _LETTER_AND_TEXT.match(line))
        for letter in _letter(found, order)
    ]
    begins_with_text = _begins_with_text(words(text), options)
    if letters or (exact and (begins_with_text or not lettered)):
        return exact | alone
    both = _LETTERS.match(text)
    if both and all(_letter_place(each, order) is not None for each in both.groups()):
        return {
            order[place]
            for each in both.groups()
            if (place := _letter_place(each, order)) is not None
        }
    if begins_with_text:
        return _named(text, options)
    for letter in _letter(_FIRST_LETTER.match(text), order):
        return _of_letter(letter, options, order)
    if lettered:
        return set().union(*(_letter_with_text(*each, options, order) for each in lettered))
    return _named(text, options)


_REASON_BEHIND = re.compile(
    r"[,;]?\s+(?:because|since|rather\s+than|instead\s+of|as\s+opposed\s+to|unlike|whereas)\b",
    re.IGNORECASE,
)


def _named(text: str, options: Options) -> set[str]:
    """The options that a text names by their words; a reason behind it names others in passing."""
    before = chosen_options(words(_REASON_BEHIND.split(text, 1)[0]), options, _DENIALS)
    return before if len(before) == 1 else chosen_options(words(text), options, _DENIALS)


def _letter_with_text(letter: str, text: str, options: Options, order: Sequence[str]) -> set[str]:
    """ "B. MRI": the option, or several where letter and text are of different ones."""
    place = _letter_place(letter, order)
    label = "" if place is None else order[place]
    said = words(text)
    # Marks inside the option's own text are none of its rivals': "H. Machine A: 5; machine B: 7".
    own = max(
        (len(each) for each in options.get(label, ()) if said[: len(each)] == each), default=0
    )
    if own and own == len(said):
        return {label}
    others = _letters_within(letter, text, options, order, own)
    if others:
        return {label, *others}
    first = _SENTENCE.split(text, 1)[0]
    named = _named(first, options)
    if named:
        return named | {label}
    keys, said = _keys(options, order), set(words(first))
    others = set().union(*(key for each, key in keys.items() if each != label))
    own = keys.get(label, set())
    # "E. difficile" is neither the fifth option nor the one called C. difficile.
    is_another = said & (others - own) and not said & own
    return set() if is_another else _of_letter(letter, options, order)


def _letter_place(letter: str, order: Sequence[str]) -> int | None:
    place = ord(letter.upper()) - ord("A")
    return place if place < len(order) else None


def _letter(found: re.Match[str] | None, order: Sequence[str]) -> list[str]:
    """The letter of a match, where there is an option of that letter."""
    if found is None or _letter_place(found[1], order) is None:
        return []
    return [found[1]]


_MARKED_LETTER = re.compile(
    r"(?<![\w.'-])(?<!not )(?<!not \()\(?([A-Z])(?:[).:]|(?=\s+(?:is|was)\s))"
)


def _letters_within(
    letter: str, text: str, options: Options, order: Sequence[str], first: int
) -> set[str]:
    """Options that a text marks by further letters ("A. CT B. MRI"); not that of "C. difficile".

    The `first` words of the text are not searched.
    """
    marks = dropwhile(
        lambda found: len(words(text[: found.start()])) < first, _MARKED_LETTER.finditer(text)
    )
    return {
        order[place]
        for found in marks
        if (place := _letter_place(found[1], order)) is not None
        and found[1] != letter.upper()
        and not _begins_with_text(words(text[found.start() :]), options)
    }


def _of_letter(letter: str, options: Options, order: Sequence[str]) -> set[str]:
    """The option of a letter; none where the letter alone tells another option from the rest.

    Of vitamin C, vitamin A and vitamin D, "C" may be the third or the first.
    """
    place = _letter_place(letter, order)
    if place is None:
        return set()
    keys = _keys(options, order)
    rivals = [
        each for each, key in keys.items() if key == {letter.lower()} and each != order[place]
    ]
    return set() if rivals else {order[place]}


def _keys(options: Options, order: Sequence[str]) -> dict[str, set[str]]:
    """The words of each listed option that not all of them have."""
    listed = {each: set(options[each][0]) for each in order if options.get(each)}
    shared = set.intersection(*listed.values()) if len(listed) > 1 else set()
    return {each: known - shared for each, known in listed.items()}


def _begins_with_text(sequence: tuple[str, ...], options: Options) -> bool:
    """Whether an answer begins with the text of an option that itself begins with a letter."""
    return any(
        len(phrase) > 1 and len(phrase[0]) == 1 and sequence[: len(phrase)] == phrase
        for phrases in options.values()
        for phrase in phrases
    )


def options_of(
    reference: str,
    question: str,
    given: tuple[str, ...] = (),
    version: str = NORMALISER_VERSION,
) -> Options:
    """Options of a closed question whose reference is not yes or no; the reference is always one.

    They are `given` where the data set lists them, or else read from the question.
    """
    expected = words(reference, version)
    note = _NOTE.search(question)
    listed = given or (_QUOTED.findall(note.group(1)) if note else ())
    if listed:
        options = _as_options(listed, version)
    else:
        chinese = (each for found in _CHINESE_CHOICE.finditer(question) for each in found.groups())
        texts = (*(closed_options(question, reference) or ()), *chinese)
        options = _as_options(texts, version)
        for contrast, first_words in zip(_CONTRASTS, _CONTRAST_WORDS, strict=True):
            if not first_words.isdisjoint(expected) and chosen_options(expected, contrast):
                options = options | contrast
    options.pop("", None)
    if len(chosen_options(expected, options)) != 1 and expected:
        options = options | {" ".join(expected): (expected,)}
    return options


def _as_options(texts: Iterable[str], version: str) -> Options:
    return {" ".join(words(text, version)): (words(text, version),) for text in texts}
