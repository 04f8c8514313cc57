"""Report content -> `report.html` and `scores.csv` in the run folder."""

from pathlib import Path
from typing import Any

from exgra_med.errors import import_extra
from exgra_med.evaluation.report.content import Content, gather
from exgra_med.evaluation.report.figures import training_figures
from exgra_med.evaluation.report.tables import scores_csv
from exgra_med.files import write_text

# Templates of the report: escaped for HTML, made plain for Markdown.


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


def write_report(run: Path, data_folder: str | None = None) -> Path:
    """Write `report.html` and `scores.csv` of a run.

    The page needs no network, no other file and no script to be read.

    Args:
        run: the run folder.
        data_folder: the prepared folder that was answered, where it is not at its place.

    Returns:
        The path of `report.html`.

    Raises:
        RunError: the folder is no run.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    content = gather(run, data_folder)
    html = render_html(content)
    write_text(run / "scores.csv", scores_csv(content.entries))
    write_text(run / "report.html", html)
    return run / "report.html"


def render_html(content: Content) -> str:
    """The page. Whatever a model or a data set says is shown as text, never as markup."""
    template = template_environment(escape=True).get_template("report.html.j2")
    figures = training_figures(content.stages)
    return template.render(report=content, figures=figures, css=template_text("report.css"))
