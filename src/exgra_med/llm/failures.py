"""What can go wrong with a language model: one answer, or everything."""

from exgra_med.errors import ServiceError


class CompletionError(ServiceError):
    """One request failed for good; others may still succeed.

    Args:
        kind: what failed last: `invalid reply`, `rate limit`, `server`, `timeout`, `connection` or
            `rejected`.
        detail: one clause without any text of the data.
        attempts: requests that were made for it.
    """

    def __init__(self, kind: str, detail: str, attempts: int) -> None:
        super().__init__(f"no answer after {attempts} attempts: {kind} ({detail}).")
        self.kind = kind
        self.detail = detail
        self.attempts = attempts


class StoppedError(ServiceError):
    """No further request makes sense: a key refused, a model unknown, a server gone."""


class BudgetError(StoppedError):
    """The next request could cost more than what is left of the budget."""


class ReplyError(Exception):
    """A reply that arrived whole but cannot be used; says why without quoting it."""


class TransportError(Exception):
    """One request did not bring a reply.

    Args:
        kind: see `CompletionError`.
        detail: one clause without any text of the data.
        retryable: another try may succeed.
        fatal: no request of this run can succeed.
        retry_after_seconds: how long the server asked to wait.
        status: HTTP status, where there was one.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        retryable: bool = True,
        fatal: bool = False,
        retry_after_seconds: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{kind} ({detail})")
        self.kind = kind
        self.detail = detail
        self.retryable = retryable
        self.fatal = fatal
        self.retry_after_seconds = retry_after_seconds
        self.status = status
