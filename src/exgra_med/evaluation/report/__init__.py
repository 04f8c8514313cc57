"""A run folder -> one self-contained page: what was trained, its scores, what they do not show."""

from exgra_med.evaluation.report.render import write_report
from exgra_med.evaluation.report.runs import write_comparison

__all__ = ["write_comparison", "write_report"]
