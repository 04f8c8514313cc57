"""Mutation testing: change the code a little, and see whether a test notices.

    PYTHONPATH=src python tools/mutate.py --list 40 --seed 0 \\
        --files src/exgra_med/evaluation/metrics.py src/exgra_med/evaluation/reading.py \\
        --tests tests/unit/evaluation/test_metrics_strict.py tests/golden/test_golden_evaluation.py

Each mutant changes one place: a comparison, an operator, a number, a truth value, a condition or
what is returned. It is imported in place of its module in a process of its own, so that what a
module computes when it is imported is mutated too. Survivors are printed with file and line;
docs/reference/mutants.md says what became of them. With --list N, a seeded sample of N a file.
"""

import argparse
import ast
import importlib.machinery
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.FloorDiv: ast.Div, ast.Pow: ast.Mult, ast.Mod: ast.Mult,
    ast.MatMult: ast.Add,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: the whole changed module, and where and what it is."""

    path: Path
    line: int
    what: str
    source: str


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What can stand in place of a node, each with words for it."""
    if isinstance(node, ast.Compare):
        new = COMPARISONS[type(node.ops[0])]()
        changed = ast.Compare(node.left, [new, *node.ops[1:]], node.comparators)
        yield "comparison", changed
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "operator", ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        new_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", ast.BoolOp(new_op, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "sign or not", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "truth value", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "number", ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield "condition", ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.If):
        yield "condition", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "returned value", ast.Return(ast.Constant(None))


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a file; annotations are left alone."""
    text = path.read_text(encoding="utf-8")
    found = []
    for number, node in enumerate(ast.walk(ast.parse(text))):
        for what, _ in changes(node):
            tree = ast.parse(text)
            target = list(ast.walk(tree))[number]
            if _in_annotation(tree, target):
                continue
            (new,) = (new for kind, new in changes(target) if kind == what)
            changed = ast.fix_missing_locations(_Replace(target, new).visit(tree))
            before = ast.unparse(node).splitlines()[0]
            words = f"{what}: {before}"
            found.append(Mutant(path, getattr(node, "lineno", 0), words, ast.unparse(changed)))
    return found


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


def _in_annotation(tree: ast.AST, target: ast.AST) -> bool:
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            inner = getattr(node, field, None)
            if inner is not None and any(each is target for each in ast.walk(inner)):
                return True
    return False


class _Instead(importlib.machinery.PathFinder):
    """Finds the mutated source in place of a module's own."""

    mutant: Mutant

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """As for any module, with another loader for the mutated one."""
        found = super().find_spec(name, path, target)
        if found is not None and found.origin == str(cls.mutant.path):
            source = cls.mutant.source

            class Loader(importlib.machinery.SourceFileLoader):
                def get_code(self, fullname):  # type: ignore[no-untyped-def]
                    return compile(source, found.origin, "exec")

            found.loader = Loader(name, found.origin)
        return found


def survives(mutant: Mutant | None, tests: list[str], seconds: float, shared: str) -> bool:
    """Whether all tests pass with a mutant, or for None as the code is; too slow counts as no.

    `shared` is a folder for compiled code that mutants of files without any have in common.
    """
    if mutant is None or "@compiled" not in mutant.source:
        return _survives(mutant, tests, seconds, shared)
    with tempfile.TemporaryDirectory() as own:
        return _survives(mutant, tests, seconds, own)


def _survives(mutant: Mutant | None, tests: list[str], seconds: float, cache: str) -> bool:
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        # Compiled code is kept by the file's name and time, which a mutant does not change.
        os.environ["NUMBA_CACHE_DIR"] = cache
        if mutant is not None:
            _Instead.mutant = mutant
            at = sys.meta_path.index(importlib.machinery.PathFinder)
            sys.meta_path[at] = _Instead  # type: ignore[call-overload]
        import pytest

        plain = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        os._exit(int(pytest.main([*plain, *tests])))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def main() -> None:
    """Print survivors and a count of each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", nargs="+", type=Path, required=True)
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--list", type=int, default=0, help="mutants a file; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of one mutant")
    options = parser.parse_args()
    import hypothesis  # noqa: F401  (what every child needs, loaded once)
    import numpy  # noqa: F401
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as shared:
        report(options, shared)


def report(options: argparse.Namespace, shared: str) -> None:
    """Try the mutants of each file in turn."""
    if not survives(None, options.tests, 10 * options.seconds, shared):
        sys.exit("The tests do not pass without a mutant.")
    for path in [each.resolve() for each in options.files]:
        found = mutants(path)
        if options.list:
            chosen = random.Random(options.seed).sample(found, min(options.list, len(found)))
        else:
            chosen = found
        left = [each for each in chosen if survives(each, options.tests, options.seconds, shared)]
        name = path.relative_to(SOURCE)
        print(
            f"{name}: {len(chosen) - len(left)} of {len(chosen)} noticed, {len(found)} possible",
            flush=True,
        )
        for each in sorted(left, key=lambda each: each.line):
            print(f"  survived, line {each.line}: {each.what}", flush=True)


if __name__ == "__main__":
    main()
