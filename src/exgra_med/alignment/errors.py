"""What the alignment part says when it cannot do what was asked."""


class MatchingError(ValueError):
    """Costs, edges or settings do not describe a matching problem that can be solved."""


class MissingSolverError(MatchingError):
    """A solver is known by name, but the package it stands on is not installed."""
