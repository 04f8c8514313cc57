"""A run folder -> one self-contained page: what was trained, its scores, what they do not show."""

from exgra_med.evaluation.report.comparison import write_comparison
from exgra_med.evaluation.report.page import write_report

__all__ = ["write_comparison", "write_report"]
