"""Columns that may say who a person is, found by their names and by what is in them.

They are left out of records unless somebody asks for them: of a row no more is needed than its
picture, question, answer and group. Texts and pixels are not searched.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from exgra_med.data.sources.values import is_null

_PERSON = {"patient", "patients", "pat", "pt", "subject", "person", "participant", "individual"}
_PERSON |= {"donor", "physician", "doctor", "radiologist", "operator"}
_WHICH = {"id", "ids", "name", "names", "nr", "no", "num", "number", "key", "code", "initials"}
_WHICH |= {"identifier", "first", "last", "uid", "hash"}
_NAME = {"name", "names", "first", "last", "given", "family", "middle", "full", "maiden"}
_ALWAYS = {
    "mrn", "ssn", "dob", "birth", "birthdate", "birthday", "birthplace", "accession", "uid",
    "email", "mail", "phone", "telephone", "mobile", "fax", "address", "street", "zip", "zipcode",
    "postcode", "passport", "insurance", "nhs", "firstname", "lastname", "fullname", "surname",
    "forename", "patientid", "patientname", "subjectid", "date", "datetime", "vorname", "nachname",
    "geburtsdatum", "geburtstag", "anschrift", "telefon",
}  # fmt: skip
"""Words of a column's name that are enough."""
_RECORD_NUMBER = {"medical", "record", "number"}

_DATE = r"\d{4}[-./]\d{1,2}[-./]\d{1,2}(?:[ T].*)?|\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2})"
_HOLDS = (
    ("e-mail addresses", re.compile(r"[^@\s]+@[^@\s]+\.\w+")),
    ("dates", re.compile(_DATE)),
    ("DICOM identifiers", re.compile(r"\d+(?:\.\d+){5,}")),
    ("names as DICOM writes them", re.compile(r"[^\W\d_][^\^]*\^.*")),
    ("long numbers", re.compile(r"[A-Za-z]{0,4}[-_ ]?\d{6,}(?:\.0)?")),
    ("telephone numbers", re.compile(r"\+?\d[\d ()/-]{7,}\d")),
)
"""What all values of a column may be, and how one of them looks."""
_OF_RECORDS = frozenset(
    "group published_id split official_split options answer_index raw_question raw_answer "
    "system".split()
)
"""Fields of `meta` that this project writes itself."""
_SHORTEST = 4
"""Characters of a value that is looked for in names of images and texts."""


def identifying(metas: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Column -> why it may say who a person is, for the columns that no field was read from.

    Args:
        metas: what is left of each row, by column.
    """
    held: dict[str, set[str] | None] = {}
    reasons: dict[str, str] = {}
    for meta in metas:
        for column, value in meta.items():
            if column in reasons or column in _OF_RECORDS:
                continue
            for name, leaf in _leaves(column, value):
                if why := by_name(name):
                    reasons[column] = why if name == column else f"{name}: {why}"
                    break
                _narrow(held, column, leaf)
    for column, kinds in held.items():
        if kinds and column not in reasons:
            found = next(kind for kind, _ in _HOLDS if kind in kinds)
            reasons[column] = f"it holds {found}"
    return reasons


@lru_cache(maxsize=4096)
def by_name(column: str) -> str:
    """Why a column's name says that it identifies somebody; empty where it does not."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", column)
    said = {word.lower() for word in words}
    if said & _PERSON and said - _PERSON <= _WHICH:
        return "by its name"
    if "name" in said and said <= _NAME:
        return "by its name"
    return "by its name" if said & _ALWAYS or said >= _RECORD_NUMBER else ""


def mentions(values: Iterable[Any], texts: Sequence[str]) -> bool:
    """Whether a value that is left out, such as a number of a patient, stands in one of the texts.

    Values of fewer than four characters are not looked for.
    """
    leaves = {str(leaf).strip().casefold() for value in values for _, leaf in _leaves("", value)}
    searched = "\n".join(texts).casefold()
    return any(len(leaf) >= _SHORTEST and leaf in searched for leaf in leaves)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, or what is inside of it, each with the name that is nearest to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(str(key), inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(name, inner)
    yield name, None if isinstance(value, (Mapping, list, tuple)) else value


def _narrow(held: dict[str, set[str] | None], column: str, value: Any) -> None:
    """Keep of the kinds that all values of a column were so far those that this one is, too."""
    if is_null(value) or isinstance(value, bool) or not (text := str(value).strip()):
        return
    kinds = {kind for kind, form in _HOLDS if form.fullmatch(text)}
    if isinstance(value, date):
        kinds = {"dates"}
    before = held.get(column)
    held[column] = kinds if before is None else before & kinds
