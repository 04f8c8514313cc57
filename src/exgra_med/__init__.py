"""ExGra-Med Open: medical vision-language models trained with multi-graph alignment.

Research use only. Nothing this package prints is clinical advice.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exgra_med.model.assistant import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

_LAZY = {"load": "exgra_med.model.assistant"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import exgra_med` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Also the names that have not been imported yet, so that `help` and completion show them."""
    return sorted({*globals(), *__all__})
