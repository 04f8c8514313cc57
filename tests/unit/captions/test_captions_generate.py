"""`captions generate` against a server that misbehaves on purpose.

Long because each way to misbehave is one test against the same server.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_server import FAULTS, BadServer
from typer.testing import CliRunner

from exgra_med.captions.output import ExtendedFile
from exgra_med.cli.main import app
from exgra_med.data.llava_format import read_original
from exgra_med.data.records import read_records
from exgra_med.errors import AnswerError, DataError, ExgraMedError, ServiceError, WriteError
from exgra_med.files import disk_errors
from exgra_med.llm import service

pytest.importorskip("openai")
SOURCE = Path(__file__).resolve().parents[3] / "src"
Records = Callable[..., Path]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_WAIT_SECONDS", 0.01)


def arguments(data: Path, server: BadServer, out: Path, *more: object) -> list[str]:
    given = ["captions", "generate", str(data), "--out", str(out), "--model", "m", "--json"]
    given += ["--base-url", server.url, "--cache", str(out.parent / "c.sqlite")]
    return [*given, *map(str, more)]


def generate(
    data: Path, server: BadServer, out: Path, *more: object, failing: bool = False
) -> dict[str, Any]:
    given = arguments(data, server, out, *more)
    shown = CliRunner().invoke(app, given, catch_exceptions=failing)
    expected = AnswerError if failing else type(None)
    assert isinstance(shown.exception, expected), (shown.output, shown.exception)
    return json.loads(shown.stdout)


def start(data: Path, server: BadServer, out: Path, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "exgra_med", *arguments(data, server, out, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_misbehaviour(data: Path, number: int, out: Path, timeout: float, latency: float) -> None:
    """Every record is extended or in the ledger, and nothing that was answered is asked again."""
    # Hangs are rare, so that a timeout long enough for a busy machine costs little.
    faults = [*FAULTS, *[fault for fault in FAULTS if fault != "hang"] * 3]
    with BadServer(0.35, seed=1, delay=0.3, latency=latency, faults=faults) as server:
        summary = generate(data, server, out, "--timeout", timeout, "--attempts", 5)
        failures = lines(Path(summary["failures"]))
        done = read_records(out)
        assert summary["done"] + summary["failed"] == number
        assert (len(done), len(failures)) == (summary["done"], summary["failed"])
        assert {one.id for one in done}.isdisjoint(row["id"] for row in failures)
        assert max(server.answered.values()) == 1
        assert max(server.requests.values()) <= 5
        assert {200, 429, 500} <= set(server.statuses)
        assert summary["requests"] >= sum(server.requests.values()) > number
    with BadServer() as server:
        again = generate(data, server, out)
        assert (again["done"], again["failed"]) == (number, 0)
        assert sum(server.requests.values()) == len(failures)
    assert len({one.id for one in read_records(out)}) == number


@pytest.mark.slow
def test_200_records_against_every_misbehaviour(records: Records, tmp_path: Path) -> None:
    check_misbehaviour(records(200), 200, tmp_path / "out.jsonl", timeout=3, latency=0.0)


def check_kills(data: Path, number: int, out: Path, kills: int, rest: float) -> None:
    with BadServer(latency=0.05) as server:
        for _ in range(kills):
            before = sum(server.answered.values())
            process = start(data, server, out, "--concurrency", 16)
            deadline = time.monotonic() + 60
            while sum(server.answered.values()) < before + rest * number / kills:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        summary = generate(data, server, out, "--concurrency", 16)
        assert (summary["done"], summary["failed"]) == (number, 0)
        assert sorted(one.id for one in read_records(out)) == sorted(
            f"r/{row}" for row in range(number)
        )
        twice = sum(count - 1 for count in server.answered.values())
        assert twice <= kills * 16


def test_sigkill_loses_at_most_the_requests_in_flight(records: Records, tmp_path: Path) -> None:
    check_kills(records(200), 200, tmp_path / "out.jsonl", kills=1, rest=0.5)


@pytest.mark.slow
def test_10000_records_against_every_misbehaviour(records: Records, tmp_path: Path) -> None:
    check_misbehaviour(records(10_000), 10_000, tmp_path / "out.jsonl", timeout=10, latency=0.01)


@pytest.mark.slow
def test_sigkill_many_times(records: Records, tmp_path: Path) -> None:
    check_kills(records(3000), 3000, tmp_path / "out.jsonl", kills=5, rest=0.8)


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_keeps_what_was_finished(records: Records, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with BadServer(latency=0.05) as server:
        process = start(records(500), server, out, "--concurrency", 4)
        while sum(server.answered.values()) < 20 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
        answered = sum(server.answered.values())
    assert process.returncode == 130, stderr
    summary = json.loads(stdout)
    assert summary["interrupted"] and summary["left"] == 500 - summary["done"] > 0
    assert len(read_records(out)) == summary["done"] == answered
    assert "Traceback" not in stderr


def test_answers_are_shared_across_files_and_runs(records: Records, tmp_path: Path) -> None:
    with BadServer() as server:
        first = generate(records(6), server, tmp_path / "a.jsonl")
        second = generate(records(8, name="more.jsonl"), server, tmp_path / "b.jsonl")
    assert (first["done"], first["requests"], first["from_cache"]) == (6, 6, 0)
    assert (second["done"], second["requests"], second["from_cache"]) == (8, 2, 6)


def test_a_cut_last_line_is_written_again(records: Records, tmp_path: Path) -> None:
    data, out = records(3), tmp_path / "out.jsonl"
    with BadServer() as server:
        generate(data, server, out)
        whole = out.read_bytes()
        out.write_bytes(whole[:-20])
        summary = generate(data, server, out)
    assert (summary["done"], summary["earlier"], summary["requests"]) == (3, 2, 0)
    assert len(read_records(out)) == 3


def test_several_turns_text_only_and_unicode(tmp_path: Path) -> None:
    items = [
        {
            "id": 7,
            "image": "a.jpg",
            "domain": {"mri": True},
            "conversatons": [
                {"from": "human", "value": '<image>\nWhat is "shown"?'},
                {"from": "gpt", "value": "A β-cell\nline 2"},
                {"from": "human", "value": "How many?"},
                {"from": "gpt", "value": 2},
            ],
        },
        {
            "id": "t",
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "左"}],
        },
    ]
    data, out = tmp_path / "original.json", tmp_path / "out.json"
    data.write_text(json.dumps(items), encoding="utf-8")
    with BadServer() as server:
        summary = generate(data, server, out, "--format", "original")
        asked = {body["messages"][1]["content"] for body in server.bodies}
    assert summary["done"] == 2 and summary["requests"] == 3
    assert '{"instruction": "What is \\"shown\\"?", "answer": "A β-cell\\nline 2"}' in asked
    assert '{"instruction": "How many?", "answer": "2"}' in asked
    first, second = json.loads(out.read_text(encoding="utf-8"))
    assert list(first) == ["id", "image", "domain", "conversations", "conversations_long"]
    assert first["id"] == 7 and "image" not in second
    assert first["conversations_long"][0]["value"] == '<image>\nWhat is "shown"?'
    assert first["conversations_long"][3]["value"].startswith("In short: 2.")
    assert first["conversations"][3]["value"] == "2"
    assert [one.extended for one in read_original(out)] != [None, None]
    assert not out.with_name("out.partial.jsonl").exists()


def test_a_record_with_one_failed_turn_is_a_failure(records: Records, tmp_path: Path) -> None:
    with BadServer() as server:
        server.replies = ['{"revision": "good"}', "bad", "bad"]
        out = tmp_path / "out.jsonl"
        summary = generate(records(1, turns=2), server, out, "--attempts", 2, failing=True)
        (failure,) = lines(tmp_path / "out.failures.jsonl")
        assert (summary["done"], summary["failed"]) == (0, 1)
        assert (failure["id"], failure["turn"], failure["kind"]) == ("r/0", 1, "invalid reply")
        assert "lesion" not in json.dumps(failure)
        again = generate(records(1, turns=2), server, out)
    assert (again["done"], again["from_cache"]) == (1, 1)
    assert read_records(out)[0].extended[0] == "good"


def test_a_server_without_structured_output_is_asked_without(
    records: Records, tmp_path: Path
) -> None:
    with BadServer(knows_schema=False) as server:
        summary = generate(records(5), server, tmp_path / "out.jsonl", "--concurrency", 1)
    assert summary["done"] == 5
    assert ["response_format" in body for body in server.bodies] == [True] + [False] * 5


def test_records_say_who_extended_them(records: Records, tmp_path: Path) -> None:
    data, out = records(2), tmp_path / "out.jsonl"
    with BadServer() as server:
        generate(data, server, out)
        made_by = read_records(out)[0].meta["extended_by"]
        assert made_by["model"] == "m" and made_by["prompt"].startswith("extend-answer/1-")
        with pytest.raises(DataError, match="was made by"):
            generate(data, server, out, "--model", "other")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refused_key_stops_at_once(records: Records, tmp_path: Path, status: int) -> None:
    with BadServer() as server:
        server.replies = [status] * 500
        given = arguments(records(300), server, tmp_path / "out.jsonl", "--concurrency", 4)
        shown = CliRunner().invoke(app, given)
    assert isinstance(shown.exception, ServiceError) and shown.exception.exit_code == 1
    assert sum(server.requests.values()) <= 8
    assert json.loads(shown.stdout)["left"] == 300


def test_a_key_is_sent_but_never_shown(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    with BadServer() as server:
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret")
        monkeypatch.setenv("OPENROUTER_ENDPOINT", server.url)
        given = arguments(records(3), server, out)
        place = given.index("--base-url")
        shown = CliRunner().invoke(app, given[:place] + given[place + 2 :])
        assert shown.exit_code == 0, shown.output
        assert server.headers[0]["authorization"] == "bearer sk-secret"
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("*.*"))
    assert "sk-secret" not in shown.output and b"sk-secret" not in kept


def test_remote_addresses_and_patients_are_refused_before_any_connection(
    records: Records, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    with BadServer() as server:
        given = arguments(records(2), server, out, "--base-url", "https://llm.example/v1")
        shown = CliRunner().invoke(app, given)
        assert "--allow-remote" in shown.exception.hint
        data = tmp_path / "phi.jsonl"
        talk = [
            {"role": "user", "text": "Q"},
            {"role": "assistant", "text": "Mrs. Doe, DOB 1.2.56"},
        ]
        data.write_text(json.dumps({"id": "x", "turns": talk}) + "\n")
        shown = CliRunner().invoke(app, arguments(data, server, out))
        assert isinstance(shown.exception, DataError) and "Doe" not in str(shown.exception)
        assert "name: 1" in str(shown.exception) and "'x'" in str(shown.exception)
        assert not out.exists() and not server.requests
        assert generate(data, server, out, "--force")["done"] == 1


def test_redirects_are_not_followed(records: Records, tmp_path: Path) -> None:
    with BadServer() as server:
        server.replies = [307] * 10
        summary = generate(records(1), server, tmp_path / "out.jsonl", failing=True)
    (failure,) = lines(tmp_path / "out.failures.jsonl")
    assert summary["failed"] == 1 and failure["detail"].startswith("HTTP 307")


def test_dry_run_connects_to_nothing(records: Records, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with BadServer() as server:
        given = arguments(records(4, turns=2), server, out, "--dry-run", "--price", 1, 2)
        shown = CliRunner().invoke(app, given, catch_exceptions=False)
    figures = json.loads(shown.stdout)
    assert (figures["records"], figures["answers"], figures["requests"]) == (4, 8, 8)
    tokens = figures["prompt_tokens"] + 2 * figures["completion_tokens"]
    assert figures["cost"] == pytest.approx(tokens / 1e6)
    assert figures["example"]["messages"][1]["content"].startswith('{"instruction": "What is at 0')
    assert not server.requests and not out.exists()


def test_the_budget_stops_the_run(records: Records, tmp_path: Path) -> None:
    more = ("--max-cost", 0.01, "--price", 1, 10, "--max-new-tokens", 100)
    with BadServer() as server:
        given = arguments(records(200), server, tmp_path / "out.jsonl", *more)
        shown = CliRunner().invoke(app, given)
    summary = json.loads(shown.stdout)
    assert isinstance(shown.exception, ExgraMedError) and "budget" in str(shown.exception)
    assert summary["left"] > 0 and 0.008 < summary["cost"] <= 0.01


def test_limit_and_a_prepared_folder(tmp_path: Path) -> None:
    with BadServer() as server:
        out = tmp_path / "out.jsonl"
        summary = generate("bundled:vqa-rad-sample", server, out, "--limit", 5)
        assert (summary["done"], len(read_records(out))) == (5, 5)


def test_malformed_input_is_named_before_anything_is_sent(records: Records, tmp_path: Path) -> None:
    data = records(3)
    data.write_text(data.read_text() + '{"id": "x", "turns": []}\n')
    with BadServer() as server:
        shown = CliRunner().invoke(app, arguments(data, server, tmp_path / "out.jsonl"))
    assert isinstance(shown.exception, DataError) and ":4" in str(shown.exception)
    assert not server.requests


def test_a_local_address_is_reached_without_the_proxy_of_the_environment(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with BadServer() as server:
        assert generate(records(2), server, tmp_path / "out.jsonl")["done"] == 2


def test_a_full_disk_is_named_and_what_was_written_stays(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, written = tmp_path / "out.jsonl", []
    append = ExtendedFile._append

    def full(self: ExtendedFile, stream: Any, line: bytes) -> None:
        if len(written) == 3:
            with disk_errors(self.path):
                raise OSError(28, "No space left on device")
        written.append(line)
        append(self, stream, line)

    data = records(20)
    with BadServer() as server:
        with monkeypatch.context() as patch, pytest.raises(WriteError, match="full"):
            patch.setattr(ExtendedFile, "_append", full)
            generate(data, server, out, "--concurrency", 2)
        assert len(read_records(out)) == 3
        assert generate(data, server, out)["done"] == 20
        assert max(server.answered.values()) == 1
