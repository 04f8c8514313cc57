"""Every command with its help, arguments, options and examples, from the command line itself."""

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from exgra_med.cli.main import app


def commands() -> Iterator[tuple[str, Any]]:
    """Each command's whole name and its click command, in the order of the help."""
    yield from _walk(get_command(app), "exgra-med")


def command_pages() -> dict[str, str]:
    """The reference as Markdown, by first verb: one page a verb, one heading a command."""
    verbs: dict[str, list[tuple[str, Any]]] = {}
    for name, command in commands():
        verbs.setdefault(name.split()[1], []).append((name, command))
    return {verb: _page(verb, found) for verb, found in verbs.items()}


def command_table() -> str:
    """Every command with the first sentence of its help, and where it is described."""
    rows = ["| command | |", "| --- | --- |"]
    for name, command in commands():
        heading = name.replace(" ", "-")
        link = f"[`{name}`](commands/{name.split()[1]}.md#{heading})"
        rows.append(f"| {link} | {_cell((command.help or '').split('. ')[0].rstrip('.'))} |")
    return "\n".join(rows) + "\n"


def _page(verb: str, found: list[tuple[str, Any]]) -> str:
    parts = [f"# {verb}", ""]
    for name, command in found:
        parts += [f"## `{name}`", "", _paragraphs(command.help or ""), ""]
        parts += ["```text", usage(name, command), "```", ""]
        rows = [_row(each) for each in command.params]
        if rows:
            parts += [
                "| argument or option | default | meaning |",
                "| --- | --- | --- |",
                *rows,
                "",
            ]
        if command.epilog:
            parts += [_paragraphs(command.epilog), ""]
    return "\n".join(parts).rstrip() + "\n"


def usage(name: str, command: Any) -> str:
    """One line: the command, what it needs, and that it has options."""
    words = [name]
    for each in command.params:
        if each.param_type_name == "argument":
            words.append(shown(each) if each.required else f"[{shown(each)}]")
        elif each.required:
            words.append(f"{each.opts[0]} {shown(each)}")
    return " ".join([*words, "[OPTIONS]"])


def shown(each: Any) -> str:
    """An argument, or the value of an option, as the help writes it."""
    return each.metavar or each.name.upper()


def _walk(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, command in group.commands.items():
        if command.hidden:
            continue
        here = f"{name} {key}"
        if hasattr(command, "commands"):
            yield from _walk(command, here)
        else:
            yield here, command


def _row(each: Any) -> str:
    if each.param_type_name == "argument":
        name = f"`{shown(each)}`"
    else:
        name = ", ".join(f"`{option}`" for option in [*each.opts, *each.secondary_opts])
    needed = "needed" if each.required else ""
    plain = each.default if not callable(each.default) else None
    default = needed or (f"`{plain}`" if plain not in (None, False, (), [], "") else "")
    return f"| {name} | {default} | {_cell(each.help or '')} |"


def _cell(text: str) -> str:
    return _plain(" ".join(text.split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Words in angle brackets are no markup, except in code."""
    return "`".join(
        part if number % 2 else part.replace("<", "&lt;")
        for number, part in enumerate(text.split("`"))
    )


def _paragraphs(text: str) -> str:
    """The help's own Markdown, whose examples without code marks get them."""
    text = _plain("\n".join(line.strip() for line in text.strip().splitlines()))
    return re.sub(r"^(Examples?): (exgra-med [^`]*)$", _code_examples, text, flags=re.MULTILINE)


def _code_examples(match: re.Match[str]) -> str:
    shown = " or ".join(f"`{each.strip()}`" for each in match[2].split(" | "))
    return f"{match[1]}: {shown}"
