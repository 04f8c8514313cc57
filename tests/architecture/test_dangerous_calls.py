"""Each dangerous call has one home: see SECURITY.md."""

import ast
from pathlib import Path

import pytest

import exgra_med

ROOT = Path(exgra_med.__file__).parent
HOMES = {
    "Image.open": {"data/images.py"},
    # The second only names the error that torch's safe loader raises.
    "pickle": {"data/sources/pathvqa.py", "model/convert/weights.py"},
    "zipfile": {"data/download/archives.py"},
    "tarfile": {"data/download/archives.py"},
    "extractall": set(),
    "torch.load": {"model/convert/weights.py"},
    # Read through safetensors there; what torch reads through by itself unpickles an index.
    "dcp.load": {"training/checkpoint.py"},
    "FileSystemReader": set(),
    "shell=True": set(),
    "trust_remote_code=True": set(),
    # Elsewhere files are read within bounds, by `reading.py`. These read what a model, a service or
    # a client sent, whose bytes are counted there, a cell of a table, or what this process wrote.
    "json.loads": {
        "data/on_demand.py",
        "data/sources/options.py",
        "evaluation/reading.py",
        "digests.py",
        "lab/benchmarks/step.py",
        "llm/exchange.py",
        "llm/fault.py",
        "llm/openai_transport.py",
        "llm/prompt.py",
        "model/processor.py",
        "model/served_requests.py",
        "reading.py",
        "web/isolated_pictures.py",
    },
    "json.load": set(),
    "yaml.load": set(),
    # The head of a prompt of this package.
    "yaml.safe_load": {"llm/prompt.py"},
}


def uses(tree: ast.AST) -> set[str]:
    """Names of `HOMES` that a module uses."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= {known for known in HOMES if name == known or name.endswith(f".{known}")}
            # Anything but a literal False may turn out to be true.
            found |= {
                f"{word.arg}=True" for word in node.keywords if ast.unparse(word.value) != "False"
            }
    return found & set(HOMES)


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_dangerous_call_stays_at_home(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = uses(ast.parse(path.read_text(encoding="utf-8")))
    strayed = {use for use in found if name not in HOMES[use]}
    assert not strayed


def test_the_check_sees_what_it_looks_for() -> None:
    code = "import pickle\nImage.open(x)\nPIL.Image.open(x)\ntar.extractall()\nrun(x, shell=y)"
    assert uses(ast.parse(code)) == {"pickle", "Image.open", "extractall", "shell=True"}
