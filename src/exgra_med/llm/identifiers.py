"""Patterns of text that names a patient. A finding says what kind and where, never which words.

This finds what is written the usual way; it is no de-identification and proves no text clean.
"""

import re

VERSION = 1
"""Raised with every change of a pattern: files scanned by an older version are scanned again."""

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"(?:\d{1,4}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{1,4}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?\s+\d{{2,4}}"
    rf"|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{2,4}})"
)
_NAME = r"[A-ZÀ-Þ][\w'’.-]*"

PATTERNS = {
    "name": re.compile(
        rf"(?:\b(?:[Pp]atient(?:'s)?\s+[Nn]ame|PATIENT\s+NAME|(?:[Ff]irst|[Ll]ast|[Ff]ull)\s+[Nn]ame"
        rf"|[Nn]ame\s+of\s+(?:the\s+)?patient)\s*(?:is|[:=])?\s*{_NAME}"
        rf"|(?<![\w-])(?:Name|NAME)\s*[:=]\s*{_NAME}"
        rf"|\b(?:Mr|Mrs|Ms|Miss|Herr|Frau)\b\.?\s+{_NAME}\w"
        rf"|\b[Pp]atient\s*:\s*{_NAME},?\s+{_NAME})"
    ),
    "date of birth": re.compile(
        rf"\b(?:d\.?o\.?b\.?|date\s+of\s+birth|birth\s?date|born(?:\s+on)?|geb(?:oren)?\.?)"
        rf"\s*(?:is|am|[:=])?\s*{_DATE}",
        re.IGNORECASE,
    ),
    "record number": re.compile(
        r"\b(?:mrn|medical\s+record(?:\s+(?:number|no\.?|#))?|(?:patient|hospital|record|case|study)"
        r"\s+(?:id|number|no\.?)|accession(?:\s+(?:number|no\.?|#))?|nhs\s+(?:number|no\.?))"
        r"\s*(?:is|[:=#])?\s*#?\s*(?=[A-Z-]*\d)[A-Z0-9][A-Z0-9-]{3,}\b",
        re.IGNORECASE,
    ),
    "social security number": re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"),
    "telephone number": re.compile(
        r"\b(?:tel(?:ephone)?|phone|mobile|fax)\.?\s*(?:number|no\.?)?\s*[:=]?\s*\+?[\d(][\d\s()/.-]{6,}\d",
        re.IGNORECASE,
    ),
    "e-mail address": re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,}\b"),
}


def find_identifiers(text: str) -> list[str]:
    """Kinds of identifiers that a text seems to hold, each once."""
    return [kind for kind, pattern in PATTERNS.items() if pattern.search(text)]
