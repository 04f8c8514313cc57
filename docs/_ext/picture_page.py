"""The table of what is read of pictures: the very list that the tests read, none of it by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "unit" / "data"))

from picture_cases import CASES


def picture_page() -> str:
    """Markdown tables of every kind of picture, a table a group."""
    groups: dict[str, dict[str, str]] = {}
    for case in CASES:
        groups.setdefault(case.group, {})[case.row or case.what] = case.how
    parts = []
    for group, rows in groups.items():
        parts += [f"### {group}", "", "| file | what becomes of it |", "| --- | --- |"]
        parts += [f"| {what.replace('|', '/')} | {how} |" for what, how in rows.items()]
        parts.append("")
    return "\n".join(parts)
