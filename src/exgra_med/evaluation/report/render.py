"""Report content -> `report.html`, `report.md` and `scores.csv` in the run folder."""

import csv
from io import StringIO
from pathlib import Path

from exgra_med.evaluation.report.content import Content, gather
from exgra_med.evaluation.report.environment import template_environment, template_text
from exgra_med.evaluation.report.figures import training_figures
from exgra_med.files import write_text


def write_report(run: Path, data_folder: str | None = None) -> Path:
    """Write the report of a run; it needs no network, no other file and no script to be read.

    Args:
        run: the run folder.
        data_folder: the prepared folder that was answered, where it is not at the recipe's place.

    Returns:
        The path of `report.html`.

    Raises:
        RunError: the folder is no run.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    content = gather(run, data_folder)
    html = render_html(content)
    write_text(run / "report.md", render_markdown(content))
    write_text(run / "scores.csv", render_csv(content))
    write_text(run / "report.html", html)
    return run / "report.html"


def render_html(content: Content) -> str:
    """The page. Whatever a model or a data set says is shown as text, never as markup."""
    figures = training_figures(content.stages)
    css = template_text("report.css")
    return (
        template_environment(escape=True)
        .get_template("report.html.j2")
        .render(report=content, figures=figures, css=css)
    )


def render_markdown(content: Content) -> str:
    """The same without pictures."""
    return template_environment(escape=False).get_template("report.md.j2").render(report=content)


def render_csv(content: Content) -> str:
    """One row a measure and scorer, for spreadsheets."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["measure", "scorer", "percent", "low", "high", "questions"])
    for row in content.scores:
        for scorer, cell in (("strict", row.strict), ("legacy", row.legacy)):
            writer.writerow([row.name, scorer, cell.value, cell.low, cell.high, row.count])
    for other in content.datasets[1:]:
        for scorer, cell in (("strict", other.average), ("legacy", other.legacy_average)):
            name = f"average on {other.name}"
            writer.writerow([name, scorer, cell.value, cell.low, cell.high, other.count])
    for floor in content.floors:
        if not floor.is_model:
            name = f"floor: {floor.label}"
            for scorer, cell in (("strict", floor.average), ("legacy", floor.legacy_average)):
                writer.writerow([name, scorer, cell.value, cell.low, cell.high, ""])
    for each in content.chat:
        for scorer, cell in (("relative", each.relative), ("win-rate", each.win_rate)):
            name = f"chat: {each.label}, {each.judge}"
            writer.writerow([name, scorer, cell.value, cell.low, cell.high, each.num])
    return stream.getvalue()
