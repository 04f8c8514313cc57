"""Solvers of the partial matching problem, all behind one protocol (`protocol.py`).

A new solver is one function; its name in `SOLVERS` puts the shared test-suite on it.
"""

from exgra_med.errors import MatchingError
from exgra_med.plugins import Registry

SOLVERS = Registry(
    "solver",
    "exgra_med.solvers",
    {
        "anneal": "exgra_med.alignment.solvers.anneal:solve_by_annealing",
        "local-search": "exgra_med.alignment.solvers.anneal:solve_by_local_search",
        "torch": "exgra_med.alignment.solvers.torch_batched:solve_batched",
        "exhaustive": "exgra_med.alignment.solvers.exhaustive:solve_exhaustively",
        "lpmp": "exgra_med.alignment.solvers.lpmp:solve_by_message_passing",
        "pylibmgm": "exgra_med.alignment.solvers.fusion_moves:solve_by_fusion_moves",
    },
    MatchingError,
)
"""Name -> module:function; `lpmp` and `pylibmgm` only where the user has installed them."""
