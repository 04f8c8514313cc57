"""Every hyper-parameter with type, default and meaning, from the recipe's own classes."""

import inspect
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from exgra_med.recipe import schema
from exgra_med.section import Section


def sections() -> list[type[BaseModel]]:
    """The sections of a recipe: the whole first, then in the order of the source."""
    rest = [each for module in (schema, schema) for each in _own_sections(module)]
    return [schema.Recipe, *(each for each in rest if each is not schema.Recipe)]


def _own_sections(module: ModuleType) -> list[type[BaseModel]]:
    found = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, Section) and each.__module__ == module.__name__
    ]
    return sorted(found, key=lambda each: inspect.getsourcelines(each)[1])


def recipe_page() -> str:
    """The reference as Markdown: one heading a section."""
    parts = []
    for section in sections():
        parts += [f"## {section.__name__}", "", inspect.getdoc(section) or "", ""]
        parts += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        parts += [_row(section, name) for name in section.model_fields]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _row(section: type[BaseModel], name: str) -> str:
    field = section.model_fields[name]
    default = "needed" if field.is_required() else _default(field.get_default())
    meaning = " ".join((field.description or "").split())
    cells = (f"`{name}`", _type(field), default, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f"its own, see {type(value).__name__}"
    return "none" if value is None else f"`{value}`" if value != "" else "empty"


def _type(field: Any) -> str:
    limits = [str(each) for each in field.metadata if not inspect.isclass(each)]
    text = _name(field.annotation)
    bounds = [_bound(each) for each in field.metadata]
    known = ", ".join(each for each in bounds if each)
    return f"{text}, {known}" if known and limits else text


def _name(annotation: Any) -> str:
    from typing import Annotated, get_args, get_origin

    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = ", ".join(filter(None, map(_bound, inner[1].metadata))) if inner[1:] else ""
        return _name(inner[0]) + (f", {bounds}" if bounds else "")
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {_name(inner[0])}"
    if origin is dict:
        return f"{_name(inner[1])} by name"
    if inner:
        return " or ".join("none" if each is type(None) else _name(each) for each in inner)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"{annotation.__name__}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bound(limit: Any) -> str:
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [f"{word} {getattr(limit, key)}" for key, word in signs.items() if hasattr(limit, key)]
    return ", ".join(found)
