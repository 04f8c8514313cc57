"""YAML as people write it: `1e-4` is a number (PyYAML reads a string), no key stands twice."""

import re
from typing import Any

import yaml

from exgra_med.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2's idea of a float."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?([eE][-+]?\d+)|\d[\d_]*\.\d*|\.\d+([eE][-+]?\d+)?)$"),
    list("-+0123456789."),
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: the key {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML document.

    Args:
        text: the document.
        where: file or option it came from, for the error message.

    Raises:
        RecipeError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from error


def write_yaml(value: Any) -> str:
    """Write plain data as YAML, in the order it stands."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
