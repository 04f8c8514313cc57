"""`exgra-med evaluate`: ask a model, score its answers, look at the scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exgra_med.cli import options
from exgra_med.errors import CommandError
from exgra_med.files import expand_home
from exgra_med.terminal import (
    next_step,
    print_json,
    remark,
    reporter,
    say,
    show,
    table,
    waiting_for,
)

if TYPE_CHECKING:
    from exgra_med.evaluation.results import Entry
    from exgra_med.evaluation.session import Session

app = typer.Typer(
    help="Ask a model, score its answers, look at the scores.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A finished run. With --data also a checkpoint, `small`, or a model at a service, "
        "whose answers go to runs/NAME without --out.",
    ),
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]
Scorer = Annotated[
    str,
    typer.Option(
        "--scorer",
        metavar="NAME",
        help="strict, legacy, legacy-pathvqa, or strict-1: strict before version 2.",
    ),
]
ChatData = Annotated[
    str,
    typer.Option(
        "--data", metavar="DATA", help="Prepared folder, or JSON Lines in LLaVA-Med's format."
    ),
]
Answered = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Prepared folder that was answered, if it moved. Of several it names one.",
    ),
]

Expected = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="FILE|NAME",
        help="What is claimed: a YAML file, or the name of a published checkpoint.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class _Answers:
    out: options.OptionalOutRun = None
    template: options.OptionalTemplate = None
    engine: options.EngineOption = "checkpoint"


@dataclass(frozen=True, kw_only=True)
class _Asked(options.Service, _Answers):
    """Who answers the questions of an evaluation, and where the answers go."""

    max_new_tokens: options.OptionalMaxNewTokens = None  # pyrefly: ignore

    def sessions(
        self, source: str, data: Sequence[str] | None, split: str | None
    ) -> list["Session"]:
        """The evaluation of each prepared folder."""
        from exgra_med.evaluation.session import open_sessions

        asked = self.answering(source)
        found = open_sessions(source, reporter(), data=data or (), split=split, **asked)
        _tell_device(self.engine)
        return found

    def answering(self, model: str) -> dict[str, Any]:
        """Arguments of `open_sessions`.

        Raises:
            CommandError: a checkpoint, which answers greedily, is to draw its answers.
        """
        from exgra_med.evaluation.engines import CHECKPOINT
        from exgra_med.recipe.schema import EvaluationSettings

        names = "out", "template", "engine", "max_new_tokens"
        service = None
        if self.engine != CHECKPOINT:
            tokens = self.max_new_tokens or EvaluationSettings().max_new_tokens
            where = "vllm" if self.engine == "vllm" else "api"
            service = self.settings(model, self.greedy(tokens), engine=where)
        elif self.temperature or self.seed:
            raise CommandError(
                "A checkpoint answers greedily.",
                "--temperature and --seed are for a service: --engine openai.",
            )
        return {name: getattr(self, name) for name in names} | {"service": service}


def _tell_device(engine: str) -> None:
    """Say where a checkpoint answers; a service is where it is."""
    from exgra_med.evaluation.engines import CHECKPOINT, best_place, launched_processes

    if engine == CHECKPOINT and launched_processes().is_first:
        from exgra_med.model.bundle import device_sentence

        remark(device_sentence(best_place().device))


@dataclass(frozen=True, kw_only=True)
class _ChatAsked(_Asked):
    """The same for chat answers, which are long and cost money."""

    max_new_tokens: options.MaxNewTokens = 1024
    max_cost: options.MaxCost = None
    price: options.Price = None


_VQA = """
Examples:

* `exgra-med evaluate vqa runs/demo --data data/vqa-rad --split test`

* `exgra-med evaluate vqa small --data bundled:slake-sample`

* `exgra-med evaluate vqa runs/demo --data data/vqa-rad --data data/slake --out runs/both`

* `exgra-med evaluate vqa qwen2.5-vl --engine openai --base-url http://localhost:8000/v1
  --data data/vqa-rad --out runs/qwen`

* `accelerate launch -m exgra_med evaluate vqa runs/demo`
"""


@app.callback()
def _noun() -> None:
    pass


@app.command(epilog=_VQA)
@options.grouped(_Asked)
def vqa(
    source: Source,
    data: options.OptionalDataFolders = None,
    split: options.OptionalSplit = None,
    expect: Expected = None,
    as_json: options.Json = False,
    **asked: Any,
) -> None:
    """Answer the questions of a split greedily and score the answers, strict and legacy.

    Answers are kept one a line. A call that was stopped goes on where it was. Questions with
    options are asked with them; `multiple-choice` also exchanges options and weighs them.
    """
    from exgra_med.evaluation.tasks import vqa as task

    claims = None
    if expect is not None:
        from exgra_med.evaluation.claims import claims_of

        claims = claims_of(expect)
    sessions = _Asked(**asked).sessions(source, data, split)
    _evaluate(sessions, task.check, partial(task.evaluate, claims=claims), as_json)


_CHOICE = """
Examples:

* `exgra-med evaluate multiple-choice runs/demo --data data/omnimedvqa`

* `exgra-med evaluate multiple-choice runs/demo --data data/omnimedvqa --orders 4`

* `exgra-med evaluate multiple-choice qwen2.5-vl --engine openai
  --base-url http://localhost:8000/v1 --data data/omnimedvqa --out runs/qwen`
"""


@app.command("multiple-choice", epilog=_CHOICE)
@options.grouped(_Asked)
def multiple_choice(
    source: Source,
    data: options.DataFolders,
    split: options.Split = "test",
    protocol: Annotated[
        str, typer.Option("--protocol", help="generation, likelihood or both.")
    ] = "both",
    orders: Annotated[
        int, typer.Option("--orders", min=1, max=26, help="Orders of the options to ask in.")
    ] = 1,
    as_json: options.Json = False,
    **asked: Any,
) -> None:
    """Answer multiple-choice questions by generation and by option likelihood, and score them."""
    from exgra_med.evaluation.tasks import multiple_choice as task

    if protocol not in ("generation", "likelihood", "both"):
        raise CommandError(f"There is no protocol {protocol!r}.", "generation, likelihood or both.")
    how: dict[str, Any] = {"protocol": protocol, "num_rotations": orders}
    check, evaluate = partial(task.check, **how), partial(task.evaluate, **how)
    _evaluate(_Asked(**asked).sessions(source, data, split), check, evaluate, as_json)


@app.command(epilog="Example: `exgra-med evaluate reliance runs/demo`")
@options.grouped(_Asked)
def reliance(
    source: Source,
    data: options.OptionalDataFolders = None,
    split: options.OptionalSplit = None,
    as_json: options.Json = False,
    **asked: Any,
) -> None:
    """Ask again with grey, noise, exchanged and mirrored images: does the model look?"""
    from exgra_med.evaluation.tasks import reliance as task

    _evaluate(_Asked(**asked).sessions(source, data, split), task.check, task.evaluate, as_json)


@dataclass(frozen=True, kw_only=True)
class _ReportsAsked(_Asked):
    """The same for reports, which are long."""

    max_new_tokens: options.MaxNewTokens = 512


RadEval = Annotated[
    list[str] | None,
    typer.Option(
        "--radeval",
        metavar="NAME",
        help="Measure of reports by RadEval (extra `reports`): radgraph, f1chexbert, ratescore, "
        "... A wrong name lists all. May be repeated.",
    ),
]
_REPORTS = """
Examples:

* `exgra-med evaluate reports runs/demo --data data/my-reports`

* `exgra-med evaluate reports medgemma --engine openai --base-url http://localhost:8000/v1
  --data data/my-reports --out runs/medgemma --radeval radgraph --radeval f1chexbert`
"""


@app.command("reports", epilog=_REPORTS)
@options.grouped(_ReportsAsked)
def reports(
    source: Source,
    data: options.OptionalDataFolders = None,
    split: options.OptionalSplit = None,
    radeval: RadEval = None,
    as_json: options.Json = False,
    **asked: Any,
) -> None:
    """Have reports written, and score them beside their references: words and findings.

    Reports are kept one a line. A call that was stopped goes on where it was.
    """
    from exgra_med.evaluation.tasks import reports as task

    task.check_names(radeval or ())
    sessions = _ReportsAsked(**asked).sessions(source, data, split)
    _evaluate(sessions, task.check, partial(task.evaluate, radeval=radeval or ()), as_json)


_CHAT = """
Examples:

* `exgra-med evaluate chat runs/demo --data data/chat-benchmark`

* `exgra-med evaluate chat qwen2.5-vl --engine openai --base-url http://localhost:8000/v1
  --data data/chat-benchmark --out runs/qwen`
"""


@app.command(epilog=_CHAT)
@options.grouped(_ChatAsked)
def chat(
    source: Source,
    data: ChatData,
    split: options.Split = "test",
    images: options.Images = None,
    **asked: Any,
) -> None:
    """Answer chat questions, for a judge to grade.

    Answers are kept one a line. A call that was stopped goes on where it was.
    """
    from exgra_med.evaluation.answers import counts_sentence, require_usable
    from exgra_med.evaluation.tasks import chat as task

    found = task.open_chat_set(data, split, images)
    settings = _ChatAsked(**asked)
    _tell_device(settings.engine)
    session = task.answer(source, found, reporter(), **settings.answering(source))
    if not session.is_first:
        return
    for problem in session.problems:
        say(problem)
    counts = task.count_stored(session)
    say(counts_sentence(counts))
    say(f"Answers: {session.path(task.NAME)}")
    require_usable(counts)
    say(next_step(f"evaluate judge {session.run.path} --data {data} --judge MODEL"))


_JUDGE = """
Examples:

* `exgra-med evaluate judge runs/demo --data data/chat-benchmark --judge qwen3:8b
  --base-url http://localhost:11434/v1`

* `exgra-med evaluate judge answers.jsonl --data llava_med_eval_qa50_qa.jsonl --judge gpt-4o
  --allow-remote --max-cost 5`
"""


@app.command(epilog=_JUDGE)
@options.grouped(options.PaidService)
def judge(
    answers: Annotated[
        Path,
        typer.Argument(metavar="ANSWERS", help="A run with chat answers, or a file of answers."),
    ],
    data: ChatData,
    judge_model: Annotated[
        str, options.of_service("--judge", metavar="NAME", help="Name of the judge at its service.")
    ],
    split: options.Split = "test",
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    **service: Any,
) -> None:
    """Have stored chat answers graded against their references, in both orders, and score them."""
    from exgra_med.evaluation.answers import require_usable
    from exgra_med.evaluation.tasks import chat as task

    given = options.PaidService(**service)
    settings = given.settings(judge_model, given.greedy(given.max_new_tokens))
    found = task.open_chat_set(data, split)
    if dry_run:
        print_json(task.estimate_run(answers, found, settings))
        return
    result = task.judge_run(answers, found, settings, reporter(), given.seed or 0)
    show(result, as_json, task.judged_sentences(result))
    require_usable(result["answer_counts"])
    task.require_graded(result["reply_counts"])


@app.command(epilog="Example: `exgra-med evaluate baselines data/vqa-rad`")
def baselines(
    data: options.DataArgument,
    split: options.Split = "test",
    train_split: Annotated[
        str, typer.Option("--train-split", help="Split whose answers are known.")
    ] = "train",
    as_json: options.Json = False,
) -> None:
    """Score what answers the questions of a prepared folder without a model."""
    from exgra_med.data.records import open_prepared
    from exgra_med.evaluation.tasks.vqa import folder_baselines

    found = folder_baselines(open_prepared(data), split, train_split)

    def lines() -> Iterator[Any]:
        from exgra_med.evaluation.tables import score_rows
        from exgra_med.evaluation.tasks.vqa import BASELINE_LABELS

        if not found:
            yield f"The split {train_split!r} has no question, so there is no baseline."
        for name, baseline in found.items():
            rows = score_rows(baseline["scores"]["strict"])
            yield table(BASELINE_LABELS[name], _COLUMNS, rows)

    show(found, as_json, lines())


_COLUMNS = ("strict", "percent", "95 % interval", "questions")
_SCORE = """
Examples:

* `exgra-med evaluate score answers.jsonl prepared/vqa-rad/test.jsonl`

* `exgra-med evaluate score answers.jsonl test.json --candidates candidate.json --scorer legacy`

* `exgra-med evaluate score answers.xlsx prepared/vqa-rad/test.jsonl --scorer legacy
  --expect exgra-med-dci-vqa-rad`
"""


@app.command(epilog=_SCORE)
def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWERS",
            help="Answers, one JSON object a line, or a file of VLMEvalKit, lmms-eval, MedEvalKit.",
        ),
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Records, or a JSON file of the original.")
    ],
    scorer: Scorer = "strict",
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates", help="Known open answers: candidate.json, or training records."
        ),
    ] = None,
    radeval: RadEval = None,
    expect: Expected = None,
    as_json: options.Json = False,
) -> None:
    """Score a file of answers against a reference, without a model.

    References that are reports are scored as `evaluate reports` does.
    """
    from exgra_med.evaluation.answers import file_sentence, require_usable
    from exgra_med.evaluation.score import score_files
    from exgra_med.evaluation.tasks import reports as task

    if task.holds_reports(reference):
        if scorer != "strict" or candidates is not None or expect is not None:
            raise CommandError(
                "--scorer, --candidates and --expect are for short questions, not reports."
            )
        _score_reports(predictions, reference, radeval or [], as_json)
        return
    if radeval:
        raise CommandError(f"--radeval is for reports, and {reference} holds none.")
    with waiting_for(f"Scoring {predictions.name}"):
        result = score_files(predictions, reference, scorer, candidates, expected=expect)

    def lines() -> Iterator[Any]:
        from exgra_med.evaluation.claims import claim_sentences
        from exgra_med.evaluation.tables import score_rows
        from exgra_med.evaluation.tasks.vqa import count_notes

        columns = (f"{result['scorer']} scores", *_COLUMNS[1:])
        yield table(predictions.name, columns, score_rows(result["scores"]))
        yield from count_notes(result)
        yield from claim_sentences(result.get("claims") or ())
        yield file_sentence(predictions.name, result["answers_sha256"])

    show(result, as_json, lines())
    require_usable(result["answer_counts"])


def _score_reports(predictions: Path, reference: Path, radeval: list[str], as_json: bool) -> None:
    from exgra_med.evaluation.answers import file_sentence, require_usable
    from exgra_med.evaluation.tables import score_rows
    from exgra_med.evaluation.tasks import reports as task

    result = task.score_report_files(predictions, reference, radeval)

    def lines() -> Iterator[Any]:
        columns = ("reports", "percent", "95 % interval", "reports")
        rows = score_rows(result["scores"], task.report_measures())
        yield table(predictions.name, columns, rows)
        yield from task.report_notes(result)
        yield file_sentence(predictions.name, result["answers_sha256"])

    show(result, as_json, lines())
    require_usable(result["answer_counts"])


_EXPLAIN = """
Examples:

* `exgra-med evaluate explain answers.jsonl prepared/vqa-rad/test.jsonl --claimed 81.4`

* `exgra-med evaluate explain answers.jsonl test.jsonl --between strict/closed medevalkit/closed`

* `exgra-med evaluate explain answers.jsonl test.jsonl --judge qwen3:8b
  --base-url http://localhost:11434/v1 --judge-request medevalkit=request.txt`
"""


@app.command(epilog=_EXPLAIN)
@options.grouped(options.PaidService)
def explain(
    answers: Annotated[
        Path, typer.Argument(metavar="ANSWERS", help="Answers, one JSON object a line.")
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Records, or a JSON file of the original.")
    ],
    claimed: Annotated[
        str | None,
        typer.Option("--claimed", metavar="NUMBER", help="A reported score, such as 81.4."),
    ] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--between",
            metavar="FIRST SECOND",
            help="Two numbers, such as `strict/closed medevalkit/closed`. Their questions are "
            "listed by cause.",
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates", help="Known open answers: candidate.json, or training records."
        ),
    ] = None,
    judge_model: Annotated[
        str | None,
        options.of_service(
            "--judge", metavar="NAME", help="Language model for the protocols that need a judge."
        ),
    ] = None,
    judge_request: Annotated[
        list[str] | None,
        options.of_service(
            "--judge-request",
            metavar="PROTOCOL=FILE",
            help="Text file with the words to ask a protocol's judge in, instead of ours. It has "
            "the places `{question}`, `{answer}`, and `{reference}` or `{options}`. May be "
            "repeated.",
        ),
    ] = None,
    as_json: options.Json = False,
    **service: Any,
) -> None:
    """Score a file of answers under every published protocol, and say what the scores differ by.

    --json has every question behind every difference, and what a judge said.
    """
    from exgra_med.evaluation.answers import (
        counts_sentence,
        pairing_sentences,
        require_usable,
    )
    from exgra_med.evaluation.explain import CAUSES, explain_files

    given = options.PaidService(**service)
    settings = None
    if judge_model is not None:
        settings = given.settings(judge_model, given.greedy(given.max_new_tokens))
    elif judge_request:
        raise CommandError("--judge-request is for a judge, and --judge names none.")
    pairs = options.pairs(judge_request or [], "--judge-request medevalkit=request.txt")
    requests = {name: expand_home(file) for name, file in pairs.items()}
    result = explain_files(
        answers, reference, claimed, between, candidates, settings, requests, reporter()
    )

    def lines() -> Iterator[Any]:
        from exgra_med.evaluation import tables

        yield table(answers.name, *tables.protocol_table(result))
        yield from tables.wording_sentences(result)
        yield counts_sentence(result["answer_counts"])
        yield from pairing_sentences(result["pairing"], result["answers_tool"])
        yield from tables.lacking_sentences(result)
        if between is None:
            base = result["compared_with"]
            title = f"Points away from {base}, by cause"
            yield table(title, *tables.difference_table(result, CAUSES))
            yield "What lies between two numbers, question by question: --between FIRST SECOND."
        else:
            yield from tables.step_sentences(result["differences"][0])
        yield from (each["text"] for each in result["notes"])
        if result["dataset"] is None:
            yield "The reference does not tell its data set, so every protocol is shown."
        yield result["conclusion"]

    show(result, as_json, lines())
    require_usable(result["answer_counts"])


_REPORT = """
Examples:

* `exgra-med evaluate report runs/demo`

* `exgra-med evaluate report runs/a runs/b runs/c --out comparison.html`
"""


@app.command(epilog=_REPORT)
def report(runs: Runs, data: Answered = None, out: options.OptionalOutFile = None) -> None:
    """Write report.html and scores.csv into each run. Several runs are also compared on one page.

    The first run is compared with each of the others. That page is comparison.html, or --out.
    """
    from exgra_med.evaluation.report import write_comparison, write_report

    if out is not None and len(runs) == 1:
        raise CommandError(
            "--out is the page that compares several runs, and one run is named.",
            "The report of a run lies in its folder.",
        )
    for run in runs:
        say(write_report(run, data))
    if len(runs) > 1:
        say(write_comparison(runs, out or Path("comparison.html"), data))


_COMPARE = """
Examples:

* `exgra-med evaluate compare runs/a runs/b`

* `exgra-med evaluate compare a.jsonl b.jsonl prepared/vqa-rad/test.jsonl --scorer legacy`
"""


@app.command(epilog=_COMPARE)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A run, or a file of answers.")],
    second: Annotated[
        Path, typer.Argument(metavar="SECOND", help="Another one that answers the same questions.")
    ],
    reference: Annotated[
        Path | None,
        typer.Argument(
            metavar="[REFERENCE]", help="Records, or a JSON file of the original; for files."
        ),
    ] = None,
    scorer: Scorer = "strict",
    data: Answered = None,
    split: options.OptionalSplit = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Say whether two runs can be told apart on the same questions."""
    from exgra_med.evaluation.compare import compare_stored
    from exgra_med.evaluation.measures import as_scorer

    result = compare_stored(
        first, second, reference, as_scorer(scorer), data_folder=data, split=split, seed=seed
    )

    def lines() -> Iterator[Any]:
        from exgra_med.evaluation.tables import (
            behind_sentences,
            comparison_rows,
            differing_sentences,
            disagreement_sentences,
        )

        yield from (*result["warnings"], *result["notes"], *behind_sentences(result))
        one, other = result["runs"]
        title = (
            f"{one} against {other}: {result['num_compared']} questions on "
            f"{result['num_images']} images"
        )
        columns = ("measure", one, other, "difference", "interval", "p (Holm)", "")
        yield table(title, columns, comparison_rows(result))
        yield result["rule"]
        yield from differing_sentences(result)
        yield from disagreement_sentences(result)
        if first.is_dir() and second.is_dir():
            yield next_step(f"evaluate report {first} {second}")

    show(result, as_json, lines())


@app.command(epilog="Example: `exgra-med evaluate graphs runs/demo --out graphs.html`")
def graphs(
    run: options.RunArgument,
    out: options.OutFile = Path("graphs.html"),
    stage: Annotated[
        str | None, typer.Option("--stage", help="Stage that aligns. The default is the last one.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=2, max=16, help="Records, at most.")] = 8,
    draw: Annotated[
        int, typer.Option("--draw", min=0, max=2**31, help="Number of the draw of records.")
    ] = 0,
    bare: Annotated[bool, typer.Option("--bare", help="Without the graph layers.")] = False,
    device: options.Device = "auto",
) -> None:
    """Draw the graphs of a few records, and how they are matched before and after training.

    Thumbnails and texts are nodes, nearest neighbours are edges. Right and wrong matches have their
    own colours. The similarities stand beside them.
    """
    device = options.device_for(device)
    from exgra_med.evaluation.graphs import measure_graphs
    from exgra_med.evaluation.report.graphs import write_graphs
    from exgra_med.recipe.run_folder import open_run

    found = measure_graphs(open_run(run), stage, nodes, draw, not bare, device)
    for moment in (found.before, found.after):
        own, floor = (moment.levels[f"image_answer/{name}"] for name in ("accuracy", "unrelated"))
        say(
            f"{moment.title} training, image to answer by bare embeddings: {100 * own:.0f} % find "
            f"their own of {len(found.records)} records (unrelated views: {100 * floor:.0f} %)"
        )
        say(
            f"{moment.title} training, as drawn: {100 * moment.accuracy:.0f} % of matches are "
            f"right (unrelated views: {100 * moment.unrelated:.0f} %)"
        )
    say(write_graphs(found, out))


@app.command(epilog="Example: `exgra-med evaluate card runs/demo --out MODEL_CARD.md`")
def card(run: options.RunArgument, out: options.OptionalOutFile = None) -> None:
    """Write a run's model card: licences, data, hashes, scores with intervals, limits.

    It goes to MODEL_CARD.md in the run, or to --out.
    """
    from exgra_med.evaluation.cards import write_model_card

    say(write_model_card(run, out or run / "MODEL_CARD.md"))


def _evaluate(
    sessions: Sequence["Session"],
    check: Callable[["Session"], None],
    evaluate: Callable[["Session"], "Entry | None"],
    as_json: bool,
) -> None:
    """Answer and score every data set, and print one table; the other processes print nothing.

    What is wrong with the last one is said before the first question is asked.

    Raises:
        AnswerError: not one answer to a data set can be used.
    """
    for session in sessions:
        check(session)
    entries = [entry for session in sessions if (entry := evaluate(session)) is not None]
    if entries:
        _tell(sessions, entries, as_json)


def _tell(sessions: Sequence["Session"], entries: Sequence["Entry"], as_json: bool) -> None:
    from exgra_med.evaluation.answers import require_usable

    run, is_one = sessions[0].run.path, len(entries) == 1

    def lines() -> Iterator[Any]:
        from exgra_med.evaluation.tables import basis_sentences, tasks, terminal_table

        task = tasks()[entries[0].task]
        shown = table(*terminal_table(entries, task))
        if is_one:
            yield shown
        for session, entry in zip(sessions, entries, strict=True):
            if not is_one:
                yield f"{entry.label}:"
            yield from task.notes(entry)
            if claims := entry.details.get("claims"):
                from exgra_med.evaluation.claims import claim_sentences

                yield from claim_sentences(claims)
            yield from basis_sentences(entry)
            yield from session.problems
        if not is_one:
            # What is said of each is long: the numbers of all stand together behind it.
            yield shown
        yield f"Everything is in {run / 'results.json'}."
        yield next_step(f"evaluate report {run}")

    values = [entry.model_dump(mode="json") for entry in entries]
    show(values[0] if is_one else values, as_json, lines())
    for entry in entries:
        # Option likelihoods are no answers, and are scored whatever the model writes.
        if "answer_counts" in entry.details and "likelihood" not in entry.scores:
            require_usable(entry.details["answer_counts"], "" if is_one else entry.label)
