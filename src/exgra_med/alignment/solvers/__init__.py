"""Solvers of the partial matching problem, all behind one protocol (`protocol.py`).

A solver is one function. Its name in `SOLVERS`, or as an entry point of another package,

    [project.entry-points."exgra_med.solvers"]
    mine = "my_package.solver:solve"

is what a recipe's `solver` says; `tests/unit/alignment/solvers/test_solver_suite.py` runs on each.
"""

from exgra_med.errors import MatchingError
from exgra_med.plugins import Registry

SOLVERS = Registry(
    "solver",
    "exgra_med.solvers",
    {
        "anneal": "exgra_med.alignment.solvers.search:solve_by_annealing",
        "local-search": "exgra_med.alignment.solvers.search:solve_by_local_search",
        "exhaustive": "exgra_med.alignment.solvers.exhaustive:solve_exhaustively",
    },
    MatchingError,
)
"""Name -> function; see `exgra_med.plugins`."""
