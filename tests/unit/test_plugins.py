"""Things of other packages by entry point: found by name, and every fault of theirs a sentence."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exgra_med.data.inspect.describe import describe_sources
from exgra_med.data.sources import SOURCES
from exgra_med.errors import DataError
from exgra_med.plugins import Registry

FRUIT = Registry("fruit", "test.fruit", {"pi": "math:pi", "e": "math:e"}, DataError, float)

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that installs an invented package: its module's text, its entry points."""

    def install_package(
        package: str, text: str, *claims: str, group: str = FRUIT.group, place: str = "a"
    ) -> None:
        folder = tmp_path / place
        about = folder / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("\n".join([f"[{group}]", *claims]))
        (folder / f"{package}.py").write_text(text)
        if str(folder) not in sys.path:
            monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, package, raising=False)

    return install_package


def test_a_name_is_ours_or_that_of_a_package(install: Install) -> None:
    install("orchard", "PEAR = 2.5", "pear = orchard:PEAR")
    assert FRUIT.names() == ["pi", "e", "pear"]
    assert FRUIT.find("pear") == 2.5 and FRUIT.find("pi") == pytest.approx(3.14159, abs=1e-5)


def test_an_unknown_name_is_answered_with_the_known_ones(install: Install) -> None:
    install("orchard", "PEAR = 2.5", "pear = orchard:PEAR")
    with pytest.raises(DataError) as caught:
        FRUIT.find("plum")
    assert str(caught.value) == "There is no fruit 'plum'. Known: pi, e, pear."


@pytest.mark.parametrize("name, owners", [("pi", "exgra-med, orchard"), ("fig", "orchard, field")])
def test_a_name_that_two_claim_is_refused(install: Install, name: str, owners: str) -> None:
    install("orchard", "X = 1.0", "pi = orchard:X", "fig = orchard:X")
    install("field", "X = 2.0", "fig = field:X")
    with pytest.raises(DataError, match="claimed more than once") as caught:
        FRUIT.find(name)
    assert all(owner in caught.value.message for owner in owners.split(", "))
    assert "Uninstall one" in caught.value.hint


def test_one_package_may_not_claim_a_name_twice(install: Install) -> None:
    install("orchard", "X = Y = 1.0", "fig = orchard:X", "fig = orchard:Y")
    with pytest.raises(DataError, match="more than once: by orchard, orchard"):
        FRUIT.find("fig")


def test_a_package_that_is_found_twice_on_the_path_is_one(install: Install) -> None:
    install("orchard", "PEAR = 1.0", "pear = orchard:PEAR", place="older")
    install("orchard", "PEAR = 2.0", "pear = orchard:PEAR", place="newer")
    assert FRUIT.find("pear") == 2.0


@pytest.mark.parametrize(
    "text, entry, said",
    [
        ("import a_module_that_is_not_there", "orchard:X", "ModuleNotFoundError"),
        ("1 / 0", "orchard:X", "ZeroDivisionError"),
        ("X = 1.0", "orchard:ABSENT", "AttributeError"),
        ("X = 'a text'", "orchard:X", "is not a float but a str"),
    ],
)
def test_a_plug_in_that_is_broken_is_named(
    install: Install, text: str, entry: str, said: str
) -> None:
    install("orchard", text, f"fig = {entry}")
    assert "fig" in FRUIT.names()
    with pytest.raises(DataError, match=said) as caught:
        FRUIT.find("fig")
    assert "'fig' of the package orchard" in caught.value.message


def test_a_broken_data_set_does_not_hide_the_others(install: Install) -> None:
    install("broken", "1 / 0", "half-made = broken:SOURCE", group=SOURCES.group)
    rows = {row["name"]: row["title"] for row in describe_sources()}
    assert "ZeroDivisionError" in rows["half-made"] and "broken" in rows["half-made"]
    assert "SLAKE" in rows["slake"]
