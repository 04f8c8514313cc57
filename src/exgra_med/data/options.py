"""Options of closed questions by rule: yes/no, or the question's own words. Never a guess."""

import re

YES_NO = ["Yes", "No"]

_CHINESE = [["是", "不是"], ["是的", "不是"], ["有", "没有"], ["存在", "不存在"]]
_CHINESE += [["包含", "不包含"], ["会", "不会"], ["正常", "不正常"], ["是", "否"]]

_ARTICLES = {"a", "an", "the"}
_STOPS = {"is", "are", "was", "were", "be", "seen", "in", "on", "of", "located", "appear", "taken"}
_STOPS |= {"does", "do", "has", "have", "with", "or", "to", "at", "this", "image", "use"}
_STOPS |= {"not", "no", "non"}
_ADJECTIVES = {"left", "right", "gray", "grey", "white", "more", "less", "upper", "lower"}
_LONGEST = 3


def closed_options(question: str, answer: str) -> list[str] | None:
    """The answers a closed question lets choose from, in the question's order.

    The words around "or" are only taken where the answer is one of the two, word for word.

    Args:
        question: the question, without any prompt suffix.
        answer: the reference answer; decides where an option in the question begins and ends.

    Returns:
        Two or more options, one of which is the answer but for case; None where the question does
        not say them.
    """
    if _plain(answer) in ("yes", "no"):
        return list(YES_NO)
    for pair in _CHINESE:
        if answer in pair:
            return list(pair)
    text = re.sub(r"[?.\"]", " ", question).strip()
    listed = _listed(text)
    if listed and _plain(answer) in map(_plain, listed):
        return listed
    parts = re.split(r"\s(?:or|vs)\s", text, flags=re.IGNORECASE)
    if len(parts) != 2:
        return None
    for pair in _pairs(parts[0].split(), parts[1].split()):
        matches = [_plain(option) == _plain(answer) for option in pair]
        if matches.count(True) == 1:
            return list(pair)
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").split())


def _listed(text: str) -> list[str] | None:
    """`..., A, B, or C ...` with one or two words each; the first may carry words before it."""
    found = re.search(r"([\w-]+(?: weighted)?), ([\w-]+(?: weighted)?), or ([\w-]+)", text)
    return list(found.groups()) if found else None


def _pairs(left: list[str], right: list[str]) -> list[tuple[str, str]]:
    """Candidate options, the most plainly parallel readings first."""
    if not left or not right:
        return []
    if right[0].lower() in _ARTICLES:
        # "a physical injury or a medical process": two whole noun phrases.
        right = right[1:]
        starts = [i for i, word in enumerate(left) if word.lower() in _ARTICLES]
        phrase = left[starts[-1] + 1 :] if starts else []
        lengths = range(len(phrase), 0, -1)
        return _clean([(" ".join(phrase), " ".join(right[:length])) for length in lengths])
    pairs = [(left[-1], right[0])]
    for length in range(2, min(_LONGEST, len(right)) + 1):
        if left[-1].lower() in _ADJECTIVES:
            # "left or right kidney": the noun belongs to both.
            tail = " ".join(right[1:length])
            pairs.append((f"{left[-1]} {tail}", " ".join(right[:length])))
        elif len(left) > 1 and left[-2].lower() in _ARTICLES:
            pairs.append((left[-1], " ".join(right[:length])))
    for length in range(2, min(_LONGEST, len(left)) + 1):
        pairs.append((" ".join(left[-length:]), " ".join(right[:length])))
    return _clean(pairs)


def _clean(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Readings whose options are whole phrases: no verb, preposition or possessive at an edge."""
    return [
        pair
        for pair in pairs
        if all(
            words and words[0] not in _STOPS | _ARTICLES and words[-1] not in _STOPS
            for words in (option.lower().split() for option in pair)
        )
        and not any("'s" in option for option in pair)
    ]
