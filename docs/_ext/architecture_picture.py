"""The picture of the architecture page: who imports whom, read from the imports themselves.

Rows and columns are the folders in the order of the layers; a cell counts the files of the row's
folder that import something of the column's. Imports that go one way leave the upper right empty.
"""

import ast
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

CELL, LEFT, TOP = 38, 112, 96
STAND_ALONE = {"alignment"}
"""Folders that import no other folder, only the files of `EVERYWHERE`."""
EVERYWHERE = {"errors", "plugins", "section"}


def layers() -> list[str]:
    """The order that the architecture test holds, read from that test."""
    test = Path(__file__).parents[2] / "tests" / "architecture" / "test_layers.py"
    tree = ast.parse(test.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER":
            return str(ast.literal_eval(node.value.func.value)).split()  # type: ignore[attr-defined]
    raise ValueError(f"{test} has no ORDER")


def imported_folders(source: Path) -> Counter[tuple[str, str]]:
    """How many files of one folder import something of another one.

    Args:
        source: folder of the package.
    """
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted(source.rglob("*.py")):
        own = path.relative_to(source).parts[0].removesuffix(".py")
        # What lies beside the folders starts the program or names what it offers: no layer.
        for other in _imported(path) - {own} if own in layers() else ():
            found[own, other] += 1
    return found


def architecture_svg(counts: Counter[tuple[str, str]], order: list[str] | None = None) -> str:
    """Draw the counts.

    Args:
        counts: files by (importing folder, imported folder).
        order: the layers, lowest first; those of the test by default.
    """
    order = [name for name in order or layers() if any(name in pair for pair in counts)]
    number = {name: index for index, name in enumerate(order)}
    width, height = LEFT + CELL * len(order) + 12, TOP + CELL * len(order) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
        "<title>Who imports whom</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for name, index in number.items():
        along, down = LEFT + CELL * index, TOP + CELL * index
        middle, label = along + CELL / 2, escape(name)
        parts += [
            f'<text x="{LEFT - 8}" y="{down + CELL / 2 + 5}" text-anchor="end">{label}</text>',
            f'<text transform="translate({middle + 4} {TOP - 8}) rotate(-60)">{label}</text>',
        ]
        parts += [
            _cell(
                LEFT + CELL * column,
                down,
                counts.get((name, other), 0),
                own=other == name,
                allowed=column < index and (name not in STAND_ALONE or other in EVERYWHERE),
            )
            for other, column in number.items()
        ]
    parts += [
        f'<text x="{LEFT}" y="{height - 12}" fill="#555" font-size="12">row imports column; '
        "a number counts files; grey cells must stay empty</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _cell(along: int, down: int, count: int, *, own: bool, allowed: bool) -> str:
    """One square: itself, allowed (blue with a count), or forbidden (grey; red when broken)."""
    if own:
        fill = "#33415c"
    elif not allowed:
        fill = "#d62839" if count else "#f0f0f0"
    else:
        depth = min(count, 12)
        fill = f"rgb({232 - depth * 9},{241 - depth * 6},250)" if count else "white"
    square = (
        f'<rect x="{along}" y="{down}" width="{CELL}" height="{CELL}" fill="{fill}" '
        'stroke="#c8d0da" stroke-width="1"/>'
    )
    if not count or own:
        return square
    middle = f'x="{along + CELL / 2}" y="{down + CELL / 2 + 5}"'
    return f'{square}<text {middle} text-anchor="middle">{count}</text>'


def _imported(path: Path) -> set[str]:
    """First-level names of our own package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("exgra_med.")}
    return found & set(layers())
