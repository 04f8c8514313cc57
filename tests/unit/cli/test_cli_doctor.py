"""A torchvision that was built for another torch is said in one sentence, by every command."""

import sys
from pathlib import Path

import pytest

from exgra_med.cli import main
from exgra_med.cli.doctor import examine, torchvision_problem

SAID = "operator torchvision::nms does not exist"


@pytest.fixture
def misfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({SAID!r})\n")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def fail() -> None:
    raise ModuleNotFoundError("Could not import module 'AutoProcessor'.")


def test_doctor_tells_of_a_torchvision_that_does_not_fit(misfit: None) -> None:
    assert SAID in torchvision_problem()
    assert examine()["problems"] == [torchvision_problem()]


def test_any_command_says_it_instead_of_a_traceback(
    misfit: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.run()
    first, hint = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and SAID in first and "exgra-med doctor" in hint


def test_another_missing_module_stays_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exgra_med.cli.doctor.util.find_spec", lambda name: None)
    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ModuleNotFoundError):
        main.run()
