"""Text, JSON, YAML, and names that come from data, within bounds."""

import ast
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from exgra_med.errors import DataError, ExgraMedError, RecipeError

# Reading. What a file says is bounded here, whoever reads it: no text that is not UTF-8, no value
# that cannot be written again, and no few bytes that become many.

MAX_DEPTH = 100
"""Lists and mappings inside one another. Python's own limit is 1000 calls, of which some are taken
already when a file is read, and others when it is written again."""
MAX_DIGITS = 300
"""Of a whole number; what is longer does not fit into a float."""


def read_text(path: Path, error: type[ExgraMedError] = DataError) -> str:
    """The whole file as UTF-8 text, a byte-order mark removed.

    Args:
        error: what is raised.

    Raises:
        ExgraMedError: of the kind `error`: the file is absent, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as fault:
        raise error(f"{path}: no such file.") from fault
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}).") from fault
    except ValueError as fault:
        if not isinstance(fault, UnicodeDecodeError):
            raise error(f"{str(path)!r} is no name of a file.") from fault
        kind = " but UTF-16" if fault.object[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise error(
            f"{path}: not UTF-8 text{kind} (byte {fault.start}).", "Save the file as UTF-8."
        ) from fault


def value_in(
    text: str, parsers: Sequence[Callable[[str], Any]] = (json.loads, ast.literal_eval)
) -> Any:
    """The value that a language model wrote as JSON or as Python; None where it is neither.

    Never an error, whatever the text: `{{1}}` is a set of sets to Python, which cannot be.
    """
    for parse in parsers:
        try:
            with warnings.catch_warnings():
                # Python warns of a backslash in a text.
                warnings.simplefilter("ignore")
                return parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None


def decode_json(
    text: str,
    where: str,
    nan_is_null: bool = False,
    error: type[ExgraMedError] = DataError,
    finite: bool = True,
) -> Any:
    """Decode one JSON document.

    Refused are `NaN`, `Infinity` and numbers beyond a float, a key given twice, half of a
    character, and lists and objects in more than `MAX_DEPTH` others.

    Args:
        where: what errors begin with: the file, or file and line.
        nan_is_null: take `NaN`, which Python's own writers put for a missing value, as null.
        error: what is raised.
        finite: else `NaN` and `Infinity` are numbers, as in the log of a training.

    Raises:
        ExgraMedError: of the kind `error`: the text is not strict JSON; says where and why.
    """

    def constant(name: str) -> float | None:
        if not finite:
            return float(name)
        if nan_is_null and name == "NaN":
            return None
        raise error(f"{where}: {name} is not a JSON value.", "Write null or a number.")

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise error(f"{where}: a number of {len(digits)} digits.", "Write it as text.")
        return int(digits)

    def fraction(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise error(f"{where}: the number {digits[:40]} is beyond every float.")
        return value

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise error(f"{where}: the key {twice!r} is given twice in one object.")
        return value

    try:
        value = json.loads(
            text,
            parse_constant=constant,
            parse_int=whole,
            parse_float=fraction,
            object_pairs_hook=unique_keys,
        )
    except json.JSONDecodeError as fault:
        place = f"column {fault.colno}" if fault.lineno == 1 else f"line {fault.lineno}"
        raise error(
            f"{where}: not valid JSON ({fault.msg}, {place}).", "The file may be cut short."
        ) from fault
    except RecursionError as fault:
        raise error(f"{where}: JSON nested too deeply.") from fault
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise error(f"{where}: JSON nested too deeply.")
    if "\\ud" in text or "\\uD" in text:
        refuse_half_characters(value, where, error)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def refuse_half_characters(value: Any, where: str, error: type[ExgraMedError] = DataError) -> None:
    """Refuse text that cannot be written as UTF-8.

    JSON writes a character beyond the 65,536 first ones in two halves, and a text that is cut
    between them ends with half of one.

    Args:
        value: of JSON.

    Raises:
        ExgraMedError: of the kind `error`.
    """
    rows = enumerate(value) if isinstance(value, list) else [(None, value)]
    for number, row in rows:
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as fault:
            row_of = "" if number is None else f"row {number}: "
            raise error(
                f"{where}: {row_of}half of a character (a lone surrogate such as \\ud83d).",
                "The text was cut in the middle of a character; write the whole of it.",
            ) from fault


def read_json(path: Path, error: type[ExgraMedError] = DataError) -> Any:
    """Decode a whole JSON file; see `decode_json`.

    Raises:
        ExgraMedError: of the kind `error`: the file is absent, not UTF-8, or not strict JSON.
    """
    return decode_json(read_text(path, error), str(path), error=error)


def read_object(path: Path, error: type[ExgraMedError] = DataError) -> dict[str, Any]:
    """Decode a JSON file that holds one object.

    Raises:
        ExgraMedError: of the kind `error`: as for `read_json`, or it holds something else.
    """
    value = read_json(path, error)
    if not isinstance(value, dict):
        raise error(f"{path} is not a JSON object.")
    return value


# YAML as people write it: `1e-4` is a number (PyYAML reads a string), a date is text, no key stands
# twice, and every key is text.

MAX_YAML_BYTES = 2**17
"""Of a document. Recipes and studies have some kilobytes, and PyYAML reads some 50 in a second."""
MAX_YAML_VALUES = 50_000
"""Of a document, each alias (`*name`) counted as all that it stands for."""
_KNOWN_TAGS = ("null", "bool", "int", "float", "seq", "map", "str")


class _Loader(yaml.SafeLoader):
    """Safe loader of plain values, with YAML 1.2's idea of a float."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _KNOWN_TAGS
    }


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if not pair[0].endswith((":timestamp", ":value"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?([eE][-+]?\d+)|\d[\d_]*\.\d*|\.\d+([eE][-+]?\d+)?)$"),
    list("-+0123456789."),
)


def _fault(node: yaml.Node, what: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: {what}")


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = None
        if isinstance(key_node, yaml.ScalarNode):
            key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise _fault(key_node, "a key is no text; put it in quotes")
        if key in seen:
            raise _fault(key_node, f"the key {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    # No path, name or template can hold NUL, and each would say so in another way.
    if "\0" in node.value:
        raise _fault(node, "a text holds the character NUL")
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _fault(node, "a text holds half of a character")
    return node.value


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MAX_DIGITS:
        raise _fault(node, f"a number of {len(node.value)} digits")
    return loader.construct_yaml_int(node)


def _fraction(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    if not math.isfinite(value):
        raise _fault(node, f"{node.value[:40]} is no finite number")
    return value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _fraction)


class _DigitsLoader(_Loader):
    """The same, with fractions as the text that stands there: `75.20` keeps its last digit."""


_DigitsLoader.add_constructor("tag:yaml.org,2002:float", _text)


def _check_size(root: yaml.Node) -> None:
    """Refuse few bytes that become many values, a value inside itself, and what is too deep."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = sizes.get(id(node), 0)
        if known is None:
            raise _fault(node, "a value holds itself")
        if depth > MAX_DEPTH:
            raise _fault(node, "nested too deeply")
        if not known:
            sizes[id(node)] = None
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            parts = [part for pair in pairs for part in pair] or node.value
            known = sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
        if known > MAX_YAML_VALUES:
            raise _fault(node, f"more than {MAX_YAML_VALUES} values, with what aliases stand for")
        return known

    size(root, 0)


def parse_yaml(
    text: str,
    where: str,
    error: type[ExgraMedError] = RecipeError,
    *,
    fractions_as_text: bool = False,
) -> Any:
    """Read one YAML document of plain values: mappings with keys of text, lists, text, numbers,
    true, false and null.

    Args:
        fractions_as_text: leave `75.20` as it is written, since a float has no last digit.

    Raises:
        ExgraMedError: of the kind `error`: the text is not YAML, or more than `MAX_YAML_BYTES` or
            `MAX_YAML_VALUES`.
    """
    if len(text) > MAX_YAML_BYTES:
        raise error(f"{where} is larger than {MAX_YAML_BYTES} bytes.")
    try:
        loader = (_DigitsLoader if fractions_as_text else _Loader)(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_size(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    # PyYAML stumbles over odd numbers and tags with errors of every kind.
    except (yaml.YAMLError, ArithmeticError, LookupError, TypeError, ValueError) as fault:
        raise error(f"{where} is not valid YAML: {' '.join(str(fault).split())}.") from fault
    except RecursionError as fault:
        raise error(f"{where} is not valid YAML: nested too deeply.") from fault


def read_yaml(
    path: Path, error: type[ExgraMedError] = RecipeError, *, fractions_as_text: bool = False
) -> Any:
    """Read a file that holds one YAML document; see `parse_yaml`.

    Raises:
        ExgraMedError: of the kind `error`: the file cannot be read, or is not YAML.
    """
    text = read_text(path, error)
    return parse_yaml(text, str(path), error, fractions_as_text=fractions_as_text)


def write_yaml(value: Any) -> str:
    """Write plain data as YAML, in the order it stands."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


# Names that come from data: whoever wrote the data chose them, and not whoever reads it.

MAX_NAME_BYTES = 255
"""Of a file or folder; what file systems take."""
MAX_PATH_BYTES = 1024
"""Of a path below a folder; systems take 4096 with what stands in front."""
_DRIVE = re.compile(r"[A-Za-z]:")
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that end a line, steer a terminal, or are half of one."""


def stray(name: Any, parts: int | None = None, folder: str = "the folder") -> str:
    """Why a name from data may not be joined to a folder; empty where it may.

    A name is one or several parts between `/`, which go down from the folder and never up: no `..`,
    no root, no drive, no backslash, nothing that a terminal or a shell would read as a command.

    Args:
        parts: how many it may have; any number where absent.
        folder: what the folder is called.
    """
    if not isinstance(name, str) or not name:
        return "is empty or not a name"
    if STEERING.search(name):
        return "is not a name: it holds a character that ends a line or steers a terminal"
    if name.startswith("/") or "\\" in name or _DRIVE.match(name) or ".." in name.split("/"):
        return f"leaves {folder}"
    pieces = name.split("/")
    if len(os.fsencode(name)) > MAX_PATH_BYTES or any(
        len(os.fsencode(each)) > MAX_NAME_BYTES for each in pieces
    ):
        return "is too long"
    if parts is not None and (len(pieces) > parts or name.strip(".") == ""):
        return "is not the name of one file or folder"
    return ""


def inside(
    folder: Path,
    name: Any,
    what: str,
    error: type[ExgraMedError] = DataError,
    called: str = "the folder",
) -> Path:
    """The path of a name from data, which lies below a folder whatever links are there.

    Args:
        name: relative to the folder; it need not be there.
        what: what errors call the name, such as `the split 'a' of FILE`.
        error: what is raised.
        called: what errors call the folder.

    Raises:
        ExgraMedError: of the kind `error`: see `stray`, or a link that leaves the folder.
    """
    if problem := stray(name, folder=called):
        raise error(f"{what} {problem}.", "Names are relative to the folder, without '..'.")
    path = folder / name
    try:
        found = path.resolve()
        if found.is_symlink():
            raise RuntimeError("links in a circle; `resolve` itself says so up to 3.12")
        if not found.is_relative_to(folder.resolve()):
            raise error(f"{what} is a link that leaves {called}.")
    # A name that is too long, no permission; links in a circle are the RuntimeError.
    except (OSError, RuntimeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "links in a circle"
        raise error(f"{what} cannot be opened ({reason}).") from fault
    return path


def short(value: Any) -> str:
    """A value from data as an error quotes it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
