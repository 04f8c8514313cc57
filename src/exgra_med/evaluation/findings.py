"""Which findings a chest report states, and which it denies: a small set of rules.

    >>> findings_of("No effusion, pneumothorax or consolidation.")["Pneumothorax"]
    'absent'

Word overlap hardly sees that a "no" is gone. These rules do: a finding is named by one of its
words, and is denied where a cue such as "no" or "without" reaches it inside of its clause, in the
manner of NegEx (Chapman et al. 2001). They read English, know only the findings of the list, and
are rules: no trained labeler such as CheXbert stands behind them, and no clinical truth.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

State = Literal["present", "uncertain", "absent"]

VERSION = "1"
"""Of the rules; scores of different versions are different quantities."""

_DEVICES = (
    r"(?:endotracheal|tracheostomy|nasogastric|orogastric|enteric|feeding|gastric|chest|thoracostomy"
    r"|ng|og|et) tubes?|pigtail|picc|(?:central|jugular|subclavian)(?: venous)? (?:line|catheter)s?"
    r"|catheters?|pacemakers?|pacer|pacing (?:leads?|wires?)|defibrillator|a?icd|port-?a-?cath"
    r"|mediport|(?:sternal|sternotomy) wires|stents?|prosthetic valves?|swan-?ganz"
)
_HEART = r"(?:heart|cardiac)(?: (?:silhouette|contour|size|shadow))*"
_BE = r"(?:is|are|was|were|appears?|remains?)"
_LARGE = r"(?:enlarged|increased in size|large)"
_MEDIASTINUM = r"(?:cardio)?mediastin(?:um|al)(?: (?:silhouette|contours?|shadow))*"
_WIDE = r"(?:widened|enlarged|prominent)"

_NAMES: dict[str, str] = {
    "Enlarged cardiomediastinum": (
        rf"(?:{_WIDE}|widening of the|enlargement of the|prominence of the) {_MEDIASTINUM}"
        rf"|{_MEDIASTINUM} (?:widening|enlargement|prominence)"
        rf"|{_MEDIASTINUM} {_BE}(?: \w+){{0,3}}? {_WIDE}"
    ),
    "Cardiomegaly": (
        rf"cardiomegaly|cardiac enlargement|(?:enlarged|enlargement of the) {_HEART}"
        rf"|{_HEART}(?: {_BE})?(?: \w+){{0,3}}? {_LARGE}"
    ),
    "Lung opacity": (
        r"opacit(?:y|ies)|opacifications?|infiltrat(?:es?|ions?)|(?:airspace|air space) disease"
    ),
    "Lung lesion": r"nodules?|mass(?:es)?|(?<!bone )(?<!bony )(?<!lytic )(?<!osseous )lesions?"
    r"|neoplasms?|tumou?rs?|metastas[ei]s",
    "Edema": r"(?<!tissue )(?<!subcutaneous )(?:o?edema)|vascular congestion"
    r"|(?:congestive )?heart failure",
    "Consolidation": r"consolidat(?:ions?|ive)",
    "Pneumonia": r"(?:broncho)?pneumonias?|infectious process",
    "Atelectasis": r"atelecta(?:s[ei]s|tic)|(?:lobar|lung|lobe) collapse",
    "Pneumothorax": r"(?:hydro|haemo|hemo)?pneumothora(?:x|ces)",
    "Pleural effusion": r"(?<!pericardial )(?<!joint )effusions?|pleural fluid|hydrothorax",
    "Pleural other": r"(?:bi)?(?:pleural|pleuro-parenchymal|pleuroparenchymal)"
    r" (?:thickening|plaques?|scar(?:ring)?|fibrosis|calcifications?)|fibrothorax",
    "Fracture": r"fractur(?:es?|ed)",
    "Support devices": _DEVICES,
}
FINDINGS: tuple[str, ...] = tuple(_NAMES)
"""The labels of CheXpert (Irvin et al. 2019) but for "No Finding"."""

# What denies findings without their names. An own mention of the finding says more.
_NORMAL = r"(?:within normal limits|normal|unremarkable)"
_OFF = rf"(?: {_BE})?(?: \w+){{0,4}}? {_NORMAL}"
_IMPLIED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (rf"{_HEART}{_OFF}|normal {_HEART}", ("Cardiomegaly",)),
    (
        rf"cardiomediastinal(?: \w+){{0,2}}?{_OFF}",
        ("Cardiomegaly", "Enlarged cardiomediastinum"),
    ),
    (rf"mediastin(?:um|al)(?: \w+){{0,2}}?{_OFF}", ("Enlarged cardiomediastinum",)),
    (
        rf"\b(?:lungs|lung fields|both lungs) {_BE}(?: \w+){{0,2}}? clear\b(?! of)|clear lungs",
        ("Lung opacity", "Consolidation", "Pneumonia", "Edema"),
    ),
    (r"costophrenic (?:angles|sulci) are (?:sharp|clear)", ("Pleural effusion",)),
)

# Cues, the longest first where several begin alike. `nothing` are phrases with a "no" that deny no
# finding; the others reach forward from where they stand, those with `_behind` back. A `hint` that
# is denied is a denial: "no opacity that suggests pneumonia".
_CUES: dict[str, str] = {
    "nothing": (
        r"no (?:significant |substantial |appreciable |definite |interval |major |real )*"
        r"(?:change|increase|decrease|improvement|progression|worsening)(?: (?:in|of))?"
        r"|without (?:significant |interval )*(?:change|improvement)(?: in)?"
        r"|(?:is|are|has|have)? ?not (?:significantly |appreciably |substantially )?"
        r"(?:changed|improved|increased|decreased)|not only|no doubt"
        r"|may not be (?:demonstrated|seen|visible|apparent)"
        r"|not (?:seen|visualized|present|identified|noted) (?:on|in) (?:the )?(?:prior|previous)"
        # Two negations are none.
        r"|(?:not|never) (?:\w+ )?(?:absent|without|negative for|free of|resolved|cleared)"
        r"|not (?:completely |fully |entirely )(?:resolved|cleared)|no (?:lack|absence) of"
        r"|not (?:disappeared|gone)|without (?:resolution|clearing) of|no resolution of"
    ),
    "unsure": (
        r"(?:cannot|can not|can't|could not|unable to|difficult to|not) (?:\w+ )?"
        r"(?:exclude|rule out)|not excluding|rule out|r/o|evaluate for|question of|questionable"
        r"|possib(?:le|ly)|probabl[ey]|likely|suspected|(?:may|might|could) (?:be|represent|reflect"
        r"|indicate|suggest|relate to|be related to)|differential|perhaps"
    ),
    "hint": (
        r"suggest(?:s|ive of|ing)?|suspicious for|suspicion (?:of|for)|concern(?:ing)? for"
        r"|worrisome for"
    ),
    "unsure_behind": (
        r"(?:cannot|can not|can't|could not|is not|are not|not) (?:be )?"
        r"(?:\w+ )?(?:excluded|ruled out)"
        r"|(?:is|are) (?:also )?(?:possible|suspected|likely|questionable|questioned|unlikely)"
        r"|unlikely|is a (?:possibility|consideration)|may be present"
    ),
    "denied_behind": (
        r"(?:is|are|was|were|has been|have been) (?:not|no longer) (?:\w+ )?"
        r"(?:seen|identified|noted|evident|present|visible|visualized|visualised|appreciated"
        r"|detected|demonstrated|found|apparent|observed|suspected)"
        r"|(?:cannot|can not|can't) be (?:seen|identified|appreciated|detected)"
        r"|not (?:seen|identified|noted|evident|present|visible|visualized|appreciated|detected)"
        r"|no longer (?:\w+ )?(?:seen|identified|evident|present|visible|visualized)"
        r"|(?:is|are) absent|(?:has|have|is|are|has been|have been)"
        r" (?:(?!not\b|never\b)\w+ )?(?:resolved|cleared|removed|excluded|ruled out)"
        r"|\b(?:resolved|removed)$"
        r"|: ?(?:none|no|absent|negative|nil)$"
    ),
    "denied": (
        r"no|not|without|absence of|absent|negative for|free of|free from|clear of|neither|nor"
        r"|never|lack of|rather than|den(?:y|ies)|fails? to (?:show|reveal|demonstrate)"
        r"|(?:resolution|clearing|removal) of|resolved|removed|n't"
    ),
}
_CUE = re.compile(
    "|".join(rf"(?P<{name}>(?:(?<!\w)|(?=:|n't))(?:{form})(?!\w))" for name, form in _CUES.items())
)
_MENTION = {name: re.compile(rf"(?<!\w)(?:{form})(?!\w)") for name, form in _NAMES.items()}
_WITHOUT_NAME = [(re.compile(form), names) for form, names in _IMPLIED]

_SENTENCE = re.compile(
    r"(?<!\d)[.](?=\s|$|[A-Za-z]{3})|(?<=\d)[.](?=\s+[A-Z]|$)|[;!?]|\n(?=\s*(?:[A-Z•*-]|\d|$))"
)
_HEADING = re.compile(
    r"\s*(?:clinical (?:history|information|indication)|indications?|history|reason for \w+"
    r"|comparisons?|technique|examination|exam)\s*:"
)
_VERB = (
    r"(?:is|are|was|were|has|have|remains?|shows?|cannot|can|may|might|could|appears?|persists?)"
)
_SIZE = r"(?:a|an|small|tiny|mild|minimal|moderate|large|severe|persistent|stable|unchanged|new)"
_CLAUSE = re.compile(
    r"\b(?:but|however|although|though|except(?: for)?|apart from|aside from|other than|yet|because"
    r"|while|whereas|nevertheless)\b"
    rf"|\bwith (?={_SIZE}\b)"
    rf"|,? ?\band (?=(?:the|there|this|these|a|an) [^,]{{0,300}}\b{_VERB}\b)"
    # ", the heart is enlarged", but not the last of a list: ", or consolidation is seen".
    rf"|,(?=(?! ?(?:and|or|nor)\b)(?![^,]{{0,300}}\b(?:or|nor)\b)[^,]{{0,300}}\b{_VERB}\b)"
    r"|,(?= ?there (?:is|are)\b)"
    # ", small effusion", but not the last of a list: ", large effusion or consolidation".
    rf"|,(?= ?{_SIZE}\b(?!.{{0,300}}\b(?:or|nor)\b))"
)
_VERSUS = re.compile(r"\b(?:versus|vs)\b")
_NEAR = 30
"""Characters between "versus" and what it is about; "opacity ... atelectasis versus edema" is an
opacity."""
_FINITE = re.compile(rf"\b{_VERB}\b")
_STATED = re.compile(rf"\b{_VERB}\b[^,]*,")


class Mention(NamedTuple):
    """One place of a report that speaks of a finding."""

    finding: str
    state: State
    text: str
    """The clause, in small letters."""


@lru_cache(maxsize=65_536)
def findings_of(report: str) -> dict[str, State]:
    """What a report says of each finding that it speaks of, in the order of `FINDINGS`.

    Of several mentions the one that says most counts: present, uncertain, absent. "No effusion on
    the right, small effusion on the left" is a present effusion.

    >>> findings_of("Pneumonia cannot be excluded. The heart is not enlarged.")
    {'Cardiomegaly': 'absent', 'Pneumonia': 'uncertain'}
    """
    said: dict[str, set[State]] = {}
    for each in mentions_of(report):
        said.setdefault(each.finding, set()).add(each.state)
    order: tuple[State, ...] = ("present", "uncertain", "absent")
    found: dict[str, State] = {
        name: next(each for each in order if each in said[name]) for name in said
    }
    for clause in _clauses(report):
        for form, names in _WITHOUT_NAME:
            if (place := form.search(clause)) and not re.search(r"\bnot?\b", place.group()):
                for name in names:
                    found.setdefault(name, "absent")
    return {name: found[name] for name in FINDINGS if name in found}


def mentions_of(report: str) -> Iterator[Mention]:
    """Every mention of a finding by one of its names, with what its clause says of it."""
    for clause in _clauses(report):
        cues = [(each.lastgroup or "", each.start()) for each in _CUE.finditer(clause)]
        versus = [place.span() for place in _VERSUS.finditer(clause)]
        for name, form in _MENTION.items():
            for place in form.finditer(clause):
                # A cue may stand inside of a mention: "the heart is not enlarged".
                kinds = {kind for kind, start in cues if _reaches(kind, start, place)}
                state: State = "present"
                between = any(
                    0 <= place.start() - end < _NEAR or 0 <= start - place.end() < _NEAR
                    for start, end in versus
                )
                if between or kinds & {"unsure", "unsure_behind"}:
                    state = "uncertain"
                elif kinds & {"denied", "denied_behind"}:
                    state = "absent"
                elif "hint" in kinds:
                    state = "uncertain"
                yield Mention(name, state, clause)


def _reaches(kind: str, start: int, place: re.Match[str]) -> bool:
    """Whether the cue that starts there says something of the mention at a place."""
    if kind == "nothing":
        return False
    if kind.endswith("_behind"):
        between = place.end(), start
    else:
        between = start, place.start()
    is_on_its_side = start >= place.end() if kind.endswith("_behind") else start < place.end()
    # "Effusion is stable, pneumothorax not seen": behind a verb a comma begins another statement.
    return is_on_its_side and not _STATED.search(place.string, *between)


def _clauses(report: str) -> Iterator[str]:
    """Pieces of a report beyond which no cue reaches, in small letters."""
    for sentence in _SENTENCE.split(report):
        text = " ".join(sentence.lower().split())
        if text and not _HEADING.match(text):
            for part in _CLAUSE.split(text):
                yield from filter(None, (each.strip(" ,.") for each in _statements(part)))


def _statements(clause: str) -> Iterator[str]:
    """The sides of each "and" between two statements: "effusion is small and edema is not seen".

    There is a verb on both sides, or a lone comma in front, which no list of two has.
    """
    first, *rest = clause.split(" and ")
    for part in rest:
        begins_anew = _FINITE.search(first) or first.find(",") == len(first) - 1
        if begins_anew and _FINITE.search(part):
            yield first
            first = part
        else:
            first = f"{first} and {part}"
    yield first
