"""What the command line says to words that it does not know, and that flags mean one thing."""

import sys
from collections import defaultdict
from typing import Any

import pytest
from typer.main import get_command

from exgra_med.cli import main
from exgra_med.cli.main import OLD_OPTIONS, OLD_VERBS, app, verbs

ROOT = get_command(app)


def command(words: str) -> Any:
    found: Any = ROOT
    for word in words.split():
        if word.startswith("--"):
            break
        found = found.commands[word]
    return found


def options(noun: Any) -> set[str]:
    """Of a verb, or of all verbs of a noun."""
    if hasattr(noun, "commands"):
        return {option for each in noun.commands.values() for option in options(each)}
    return {option for each in noun.params for option in each.opts}


def said(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> list[str]:
    """The lines on standard error of a call that must end with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["exgra-med", *words])
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize("old", OLD_VERBS)
def test_an_old_verb_answers_with_the_new_one(old: str, monkeypatch, capsys) -> None:
    new = OLD_VERBS[old]
    assert {word for word in new.split() if word.startswith("--")} <= options(command(new))
    assert not any(path == old or path.startswith(f"{old} ") for path in verbs(ROOT))
    expected = f"Error: `{old}` is now `exgra-med {new}`."
    assert said(monkeypatch, capsys, *old.split(), "runs/x", "--json") == [expected]


@pytest.mark.parametrize(("noun", "old"), OLD_OPTIONS)
def test_an_old_option_answers_with_the_new_one(noun: str, old: str, monkeypatch, capsys) -> None:
    new = OLD_OPTIONS[noun, old]
    assert new in options(command(noun)) and old not in options(command(noun))
    path = next(path for path in verbs(ROOT) if path == noun or path.startswith(f"{noun} "))
    assert (
        said(monkeypatch, capsys, *path.split(), old, "x")[0] == f"Error: `{old}` is now `{new}`."
    )


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian", "demo"], "exgra-med train"),
        (["data", "chekc"], "exgra-med data check"),
        (["prepare", "vqa-rad"], "exgra-med data prepare"),
        (["captions", "batch", "wriet"], "exgra-med captions batch write"),
        (["train", "demo", "--dryrun"], "--dry-run"),
    ],
)
def test_a_typing_error_is_answered_with_what_was_meant(words, meant, monkeypatch, capsys) -> None:
    lines = said(monkeypatch, capsys, *words)
    assert len(lines) == 2
    assert lines[1].startswith("Did you mean ") and meant in lines[1]


def test_what_has_no_likeness_points_to_the_help(monkeypatch, capsys) -> None:
    assert said(monkeypatch, capsys, "xyzzy")[1] == "See `exgra-med --help`."
    assert said(monkeypatch, capsys, "data", "study-node")[1] == "See `exgra-med data --help`."
    assert said(monkeypatch, capsys, "--xyzzy")[0].startswith("Error: `exgra-med` has no option")
    assert said(monkeypatch, capsys, "chat") == [
        "Error: Missing argument 'MODEL'.",
        "See `exgra-med chat --help`.",
    ]


def test_a_flag_means_the_same_in_every_verb() -> None:
    """It stands in one panel and its help begins with the same sentence."""
    means: dict[str, set[str]] = defaultdict(set)
    for path in verbs(ROOT):
        if path.startswith("evaluate"):
            continue
        for each in command(path).params:
            if each.param_type_name == "option" and each.opts[0] not in OF_THE_VERB:
                sentence = each.help.split(". ")[0].rstrip(".")
                means[each.opts[0]].add(f"{each.rich_help_panel} {each.multiple} {sentence}")
    several = {flag: sorted(found) for flag, found in means.items() if len(found) > 1}
    assert not several
    assert len(means) > 60


OF_THE_VERB = {"--out", "--format", "--engine", "--origin"}
"""What they name is the verb's own: a folder or a file, its formats, who may answer, where
data comes from or a page is reached."""
