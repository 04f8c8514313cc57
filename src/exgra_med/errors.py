"""The one error tree: a sentence that says what and where, and a hint that says how to mend it.

Exit codes of the command line: 2 when the user can mend the input, 1 when the work itself failed.
"""


class ExgraMedError(Exception):
    """Base of every error meant for a person.

    Args:
        message: one sentence, what is wrong and where.
        hint: one sentence, how to mend it; may be empty.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class CommandError(ExgraMedError):
    """A command line cannot be read: an unknown verb, a missing or wrong option."""


class RecipeError(ExgraMedError):
    """A recipe, or a `--set` on top of it, does not describe a run."""


class DataError(ExgraMedError):
    """A data file, record or image cannot be used."""


class WriteError(ExgraMedError):
    """A file cannot be written: a full disk, no permission. Nothing half-written is left."""

    exit_code = 1


class CheckpointError(ExgraMedError):
    """A checkpoint is missing, malformed, or does not fit the model."""


class RunError(ExgraMedError):
    """A run folder cannot be used for what was asked."""


class DamagedFileError(RunError):
    """A file of a run, checkpoint, prepared folder or study is gone, cannot be read, or is not what
    was written."""


class ScoreError(ExgraMedError):
    """Predictions and reference, or the numbers of a comparison, do not fit together."""


class AnswerError(ExgraMedError):
    """A model was asked, and not one of its answers can be used: empty, cut, or unreadable.

    What it wrote, and the scores of it, are stored all the same.
    """

    exit_code = 1


class MatchingError(ExgraMedError):
    """Costs, edges or settings do not describe a matching problem that can be solved."""


class MissingSolverError(MatchingError):
    """A solver is known by name, but the package it stands on is not installed."""


class MissingExtraError(ExgraMedError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra [{extra}].", f"pip install 'exgra-med[{extra}]'"
        )


class ServiceError(ExgraMedError):
    """A language-model service cannot be reached or answered wrongly."""

    exit_code = 1


class TrainingError(ExgraMedError):
    """Training cannot go on: a loss that is not finite, nothing supervised, a disk that is full."""

    exit_code = 1
