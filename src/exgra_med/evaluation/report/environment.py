"""Templates of the report: escaped for HTML, made plain for Markdown."""

from pathlib import Path
from typing import Any

from exgra_med.errors import import_extra

_TEMPLATES = Path(__file__).parent / "templates"


def template_environment(escape: bool, *folders: Path) -> Any:
    """A jinja2 environment over the report's templates.

    Args:
        escape: turn markup in values into text; for HTML.
        folders: templates of another report, looked into first.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "The report", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment


def template_text(name: str) -> str:
    """A file beside the templates, as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def plain(text: Any) -> str:
    """Text for a Markdown table or line: one line, with nothing that Markdown would act on."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!~" else char for char in flat)
