"""`exgra-med`: nouns and verbs, and one sentence for every word that it does not know.

Imports nothing heavier than typer, so `--help` answers at once. Typer's own answers to a typing
error are boxes of several lines; here each is one sentence and a hint, as for every other error.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from exgra_med import __version__
from exgra_med.cli import (
    bench,
    captions,
    chat,
    checkpoint,
    data,
    demo,
    doctor,
    evaluate,
    recipe,
    serve,
    study,
    train,
    web,
)
from exgra_med.errors import CommandError, ExgraMedError
from exgra_med.files import check_names, check_working_folder, system_error_in_words
from exgra_med.terminal import printable, waiting_for

OLD_VERBS = {
    "card": "evaluate card",
    "card data": "data card",
    "card model": "evaluate card",
    "compare": "evaluate compare",
    "data candidates": "data answers",
    "data merge-captions": "captions merge",
    "draw": "evaluate graphs",
    "evaluate floors": "evaluate baselines",
    "make-parts": "study make-parts",
    "report": "evaluate report",
    "score": "evaluate score",
    "study plot": "study report --format svg",
    "study table": "study report --format markdown",
}
"""Words after `exgra-med` that were a verb once -> what they are now. Used for an answer only."""

OLD_OPTIONS = {
    ("captions", "--max-tokens"): "--max-new-tokens",
    ("data check", "--model"): "--tokenizer",
    ("data prepare", "--set"): "--option",
    ("evaluate", "--max-tokens"): "--max-new-tokens",
    ("evaluate", "--on"): "--data",
    ("web", "--limit"): "--option",
}
"""(Verb, or noun of several, option of old) -> the option now. Used for an answer only."""

_VERB = "exgra_med.verb"
# Versions of typer differ in where these classes lie; both make BadParameter a usage error.
UsageError: Any = typer.BadParameter.__mro__[1]


class Group(TyperGroup):
    """A noun, or the whole command line: it answers to an unknown verb with a known one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that the first word names.

        Raises:
            CommandError: there is none, or a word after it is empty.
        """
        words = _path(ctx)
        ctx.find_root().meta[_VERB] = [*words, args[0]]
        if not ctx.resilient_parsing:
            if args[0] not in self.commands:
                raise _unknown_verb(ctx, self, [*words, *args])
            for before, word in pairwise(args):
                # A blank one is a path or a name no more than an empty one.
                if empty := re.fullmatch(r"(?:(--[a-z-]+)=)?\s*", word):
                    option = empty[1] or (before if before.startswith("--") else "")
                    where = f", after {option}," if option else ""
                    raise CommandError(
                        f"An argument of `{_shown(*words, args[0])}`{where} is empty.",
                        "Quotes around a variable that is not set leave an empty argument.",
                    )
        return super().resolve_command(ctx, args)


class CommandLine(Group):
    """The whole command line, by panels. What cannot be read is an error of the one tree."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs and nouns in the order of their panels; typer puts verbs before nouns."""
        panels = {n: getattr(c, "rich_help_panel", None) for n, c in self.commands.items()}
        return sorted(panels, key=lambda name: PANELS.index(panels[name]))

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """As typer does."""
        with _one_sentence({}):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """As typer does."""
        with _one_sentence(ctx.meta):
            return super().invoke(ctx)


@contextmanager
def _one_sentence(meta: dict[str, Any]) -> Iterator[None]:
    """Turn a usage error into a sentence; in `meta` `Group` leaves the verb that some do not name.

    Raises:
        CommandError: instead of the usage error.
    """
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # Not an error: it prints the help.
            raise
        words = _path(error.ctx) if error.ctx is not None else meta.get(_VERB, [])
        message = " ".join(error.format_message().split())
        hint = f"See `{_shown(*words)} --help`."
        if hasattr(error, "possibilities"):
            # The option is unknown.
            message = f"`{_shown(*words)}` has no option {error.option_name}."
            if error.possibilities:
                hint = f"Did you mean {' or '.join(sorted(error.possibilities))}?"
            for (verb, old), new in OLD_OPTIONS.items():
                if old == error.option_name and words[: len(verb.split())] == verb.split():
                    message, hint = f"`{old}` is now `{new}`.", f"See `{_shown(*words)} --help`."
        raise CommandError(message, hint) from None


def _path(ctx: Any) -> list[str]:
    """The words after `exgra-med` that lead to where parsing is."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return words


def _shown(*words: str) -> str:
    return " ".join(("exgra-med", *words))


def _unknown_verb(ctx: Any, group: Group, words: list[str]) -> CommandError:
    for length in (2, 1):
        old = " ".join(words[:length])
        if old in OLD_VERBS and len(words) >= length:
            return CommandError(f"`{old}` is now `exgra-med {OLD_VERBS[old]}`.")
    at = _path(ctx)
    word = words[len(at)]
    seen = [name for name, command in group.commands.items() if not command.hidden]
    every = [path.split() for path in verbs(ctx.find_root().command)]
    # A verb of this name under another noun is more likely meant than one that is spelled alike.
    found = (
        [_shown(*path) for path in every if path[-1] == word]
        or [_shown(*at, name) for name in get_close_matches(word, seen)]
        or [_shown(*path) for path in every if get_close_matches(word, path[-1:], cutoff=0.8)]
    )
    meant = " or ".join(f"`{each}`" for each in found[:3])
    return CommandError(
        f"There is no `{_shown(*at, word)}`.",
        f"Did you mean {meant}?" if meant else f"See `{_shown(*at)} --help`.",
    )


def verbs(group: Any) -> Iterator[str]:
    """Every verb below a group, as the words that lead to it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from (f"{name} {each}" for each in verbs(command))
        elif not command.hidden:
            yield name


PANELS = ("First steps", "Prepare data", "Train and evaluate", "Use a model", "Study the method")
START, DATA, TRAIN, USE, LAB = PANELS


app = typer.Typer(
    cls=CommandLine,
    name="exgra-med",
    help="Train and evaluate medical vision-language models with multi-graph alignment.",
    epilog="Start with `exgra-med demo`. Research use only: no output of this software is clinical"
    " advice.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel=START, epilog=demo.EXAMPLES)(demo.demo)
app.command(rich_help_panel=START, epilog="Example: `exgra-med doctor`")(doctor.doctor)
app.add_typer(data.app, cls=Group, name="data", rich_help_panel=DATA)
captions.app.add_typer(captions.batch, cls=Group, name="batch")
app.add_typer(captions.app, cls=Group, name="captions", rich_help_panel=DATA)
app.add_typer(recipe.app, cls=Group, name="recipe", rich_help_panel=TRAIN)
app.command(rich_help_panel=TRAIN, epilog=train.EXAMPLES)(train.train)
app.add_typer(evaluate.app, cls=Group, name="evaluate", rich_help_panel=TRAIN)
app.add_typer(checkpoint.app, cls=Group, name="checkpoint", rich_help_panel=TRAIN)
app.command(rich_help_panel=USE, epilog=chat.EXAMPLE)(chat.chat)
app.command(rich_help_panel=USE, epilog=serve.EXAMPLE)(serve.serve)
app.command(rich_help_panel=USE, epilog=web.EXAMPLE)(web.web)
app.add_typer(study.app, cls=Group, name="study", rich_help_panel=LAB)
app.add_typer(bench.app, cls=Group, name="bench", rich_help_panel=LAB)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


INTERRUPTED = 130
"""What a shell reports for a process that Ctrl-C ended."""


def run() -> None:
    """Run the command line; a known error becomes one sentence on stderr and its exit code."""
    # transformers loads torchao where it is installed, which warns of each kernel that this machine
    # cannot load; none of them is needed here.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        # Where it is gone, libraries of torch end the process with words of their own.
        check_working_folder()
        check_names([*sys.argv[1:], str(Path.cwd())])
        with waiting_for("Loading torch and transformers", is_true=_is_importing):
            app()
    except ExgraMedError as error:
        _fail(error.message, error.hint, error.exit_code)
    except ImportError:
        problem = doctor.torchvision_problem()
        if not problem:
            raise
        _fail(f"{problem}.", "`exgra-med doctor` tells when they fit.", 1)
    except Exception as error:
        told = system_error_in_words(error)
        if told is None:
            raise
        _fail(told.message, told.hint, told.exit_code)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        # A progress bar hides the cursor, and may not have got to show it again.
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        typer.secho(f"{show_cursor}\nStopped.", err=True)
        sys.exit(INTERRUPTED)


def _is_importing() -> bool:
    """Whether one of the slow packages, or what stands on them, is just being imported."""
    slow = "torch", "transformers", "gradio", "matplotlib", "exgra_med"
    return any(
        name.partition(".")[0] in slow and getattr(module.__spec__, "_initializing", False)
        for name, module in list(sys.modules.items())
        if getattr(module, "__spec__", None) is not None
    )


def _fail(message: str, hint: str, exit_code: int) -> None:
    # On one line each, whatever a name that they quote holds.
    typer.secho(f"Error: {' '.join(printable(message).split())}", fg="red", err=True)
    if hint:
        typer.secho(" ".join(printable(hint).split()), err=True)
    # `torchrun` ends with a report of its own, which shows what it finds here.
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        text = f"{message} {hint}".strip()
        shown = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            content = json.dumps({"message": {"message": text, "extraInfo": shown}})
            Path(report).write_text(content, encoding="utf-8")
    sys.exit(exit_code)
