"""What a check found -> one self-contained HTML page; every text is shown as text."""

from pathlib import Path

from exgra_med.captions.check import CaptionCheck
from exgra_med.captions.faults import WEIGHTS
from exgra_med.errors import import_extra

_TEMPLATES = Path(__file__).parent / "templates"


def render_check(report: CaptionCheck, name: str) -> str:
    """The page: counts, worst examples first, and the sample with room for a verdict.

    Args:
        report: what was found.
        name: of the file that was checked.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "The page of the check", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("check.html.j2")
    return template.render(report=report, name=name, kinds=list(WEIGHTS))
