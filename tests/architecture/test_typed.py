"""Every public function of the package is typed, parameters and result alike."""

import ast
from pathlib import Path

import exgra_med

ROOT = Path(exgra_med.__file__).parent


def test_every_public_function_is_typed() -> None:
    untyped = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                untyped += [f"{path.relative_to(ROOT)}:{what}" for what in _missing(node)]
    assert not untyped


def _missing(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    compiled = any(ast.unparse(each).startswith("compiled") for each in node.decorator_list)
    if node.name.startswith("_") or compiled:
        # The types of compiled functions are found by the compiler.
        return []
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    missing = [
        f"{node.name}({each.arg})"
        for each in arguments
        if each.annotation is None and each.arg not in ("self", "cls")
    ]
    return missing if node.returns else [*missing, f"{node.name} -> ?"]
