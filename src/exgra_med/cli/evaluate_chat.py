"""`exgra-med evaluate chat` and `evaluate judge`: open questions, graded by a language model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exgra_med.cli import options
from exgra_med.cli.output import print_json, say

Questions = Annotated[
    str, typer.Option("--on", help="Prepared folder, or JSON Lines in LLaVA-Med's format.")
]
Split = Annotated[str, typer.Option(help="Split of a prepared folder.")]
Images = Annotated[Path | None, typer.Option(help="Folder of a file's images.")]
JudgeUrl = Annotated[
    str | None, typer.Option("--judge-url", help="Of the judge, e.g. http://localhost:11434/v1.")
]
JudgeTokens = Annotated[int, typer.Option(min=1, help="Longest reply of the judge.")]
Attempts = Annotated[int, typer.Option(min=1, help="Most requests for one grading.")]
Seed = Annotated[int, typer.Option(help="Of the judge and of the resamples.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate the cost only; no request.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]

_CHAT = """
Examples:

* `exgra-med evaluate chat runs/demo --on data/chat-benchmark`

* `exgra-med evaluate chat runs/qwen --on data/chat-benchmark --engine openai
  --base-url http://localhost:8000/v1 --model qwen2.5-vl`

Then let them be graded: `exgra-med evaluate judge runs/demo --on data/chat-benchmark ...`
"""
_JUDGE = """
Examples:

* `exgra-med evaluate judge runs/demo --on data/chat-benchmark --judge qwen3:8b
  --judge-url http://localhost:11434/v1`

* `exgra-med evaluate judge answers.jsonl --on llava_med_eval_qa50_qa.jsonl --judge gpt-4o
  --allow-remote --max-cost 5`
"""


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun `evaluate`."""
    app.command("chat", epilog=_CHAT)(chat)
    app.command("judge", epilog=_JUDGE)(judge)


def chat(
    run: Annotated[Path, typer.Argument(help="A finished run; a new folder for --engine openai.")],
    on: Questions,
    split: Split = "test",
    images: Images = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 1024,
    engine: options.EngineOption = options.Engine.exgra,
    base_url: options.BaseUrl = None,
    model: options.OptionalModel = None,
    concurrency: options.Concurrency = 8,
    allow_remote: options.AllowRemote = False,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
) -> None:
    """Answer chat questions. Answers are kept one a line; a stopped call goes on where it was."""
    from rich.console import Console

    from exgra_med.evaluation.chat.questions import open_chat_set
    from exgra_med.evaluation.chat.run import answer_chat, answer_chat_by_service
    from exgra_med.progress import RichReporter
    from exgra_med.recipe.run_folder import open_run

    reporter = RichReporter(Console(stderr=True))
    found = open_chat_set(on, split, images)
    if engine is options.Engine.openai:
        settings = options.answering_service(
            model, base_url, allow_remote, concurrency, max_new_tokens, max_cost, price
        )
        out = answer_chat_by_service(run, settings, reporter, found, on)
    else:
        out = answer_chat(open_run(run), reporter, found, max_new_tokens)
    say(f"Answers: {out}")
    say(f"Have them graded: exgra-med evaluate judge {run} --on {on} --judge MODEL")


def judge(
    answers: Annotated[Path, typer.Argument(help="A run with chat answers, or a file of answers.")],
    on: Questions,
    judge_model: Annotated[str, typer.Option("--judge", help="Name of the judge at its service.")],
    judge_url: JudgeUrl = None,
    split: Split = "test",
    seed: Seed = 0,
    max_tokens: JudgeTokens = 1024,
    attempts: Attempts = 3,
    concurrency: options.Concurrency = 8,
    allow_remote: options.AllowRemote = False,
    max_cost: options.MaxCost = None,
    price: options.Price = None,
    cache: options.Cache = None,
    force: options.Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have stored chat answers graded against their references, in both orders, and score them."""
    from rich.console import Console

    from exgra_med.evaluation.chat.questions import open_chat_set
    from exgra_med.evaluation.chat.run import estimate_run, judge_run
    from exgra_med.evaluation.chat.wording import judged_sentences
    from exgra_med.progress import RichReporter

    settings = options.service(
        judge_model, judge_url, allow_remote, concurrency, max_tokens, max_cost, price,
        attempts=attempts, seed=seed, cache=cache, force=force,
    )  # fmt: skip
    found = open_chat_set(on, split)
    if dry_run:
        print_json(estimate_run(answers, found, settings))
        return
    section: dict[str, Any] = judge_run(
        answers, found, settings, RichReporter(Console(stderr=True)), seed
    )
    if as_json:
        print_json(section)
        return
    for sentence in judged_sentences(section):
        say(sentence)
