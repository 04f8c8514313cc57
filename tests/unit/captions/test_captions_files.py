"""Merge, batch files, cost and the engine in this process: no server."""

import asyncio
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from exgra_med.captions.batch import write_batches
from exgra_med.captions.judgements import JudgementFile
from exgra_med.captions.output import ExtendedFile, failures_path, write_original
from exgra_med.captions.records import RecordFile, open_records
from exgra_med.cli.main import app
from exgra_med.data.records import iterate_records, leading_id, open_prepared, read_records
from exgra_med.errors import DamagedFileError, DataError, MissingExtraError
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.request import ChatRequest, ReplyError, Sampling
from exgra_med.llm.vllm_transport import VllmTransport


def verb(*given: object) -> Any:
    arguments = ["captions", *map(str, given), "--json"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def fake_extended(data: str, out: Path) -> Path:
    with out.open("w", encoding="utf-8") as stream:
        for record in open_records(data).iterate():
            row = record.to_json() | {"extended": [f"Long: {text}" for text in record.answers]}
            stream.write(json.dumps(row) + "\n")
    return out


def test_merge_with_a_prepared_folder(tmp_path: Path) -> None:
    data = "bundled:vqa-rad-sample"
    long = fake_extended(data, tmp_path / "long.jsonl")
    result = verb("merge", data, long, "--out", tmp_path / "merged")
    records = open_prepared(tmp_path / "merged").records("train")
    assert result["without"] == 0 and len(records) == open_records(data).total
    assert all(record.extended == [f"Long: {record.answer}"] for record in records)


def test_merge_with_a_file_of_records(records, tmp_path: Path) -> None:
    data = records(3, turns=2)
    long = fake_extended(str(data), tmp_path / "long.jsonl")
    out = tmp_path / "merged.jsonl"
    assert verb("merge", data, long, "--out", out)["unused"] == 0
    assert [one.id for one in read_records(out)] == ["r/0", "r/1", "r/2"]
    long.write_text("".join(long.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match="1 of 3 records have no extended answer") as refused:
        verb("merge", data, long, "--out", tmp_path / "second.jsonl")
    assert "--only-extended leaves them out" in refused.value.hint
    assert not (tmp_path / "second.jsonl").exists()
    result = verb("merge", data, long, "--out", tmp_path / "second.jsonl", "--allow-missing")
    assert (result["without"], result["written"], result["extended"]) == (1, 3, 2)
    with pytest.raises(DataError, match="no id of it"):
        other = fake_extended("bundled:vqa-rad-sample", tmp_path / "other.jsonl")
        verb("merge", data, other, "--out", tmp_path / "third.jsonl")


def test_merge_takes_what_is_there(prepared, tmp_path: Path) -> None:
    rows = [("train", f"{n}", "What?", f"Mass {n}") for n in range(7)]
    data = prepared("data", [*rows, ("test", "t", "What?", "Mass")])
    long, out = fake_extended(data, tmp_path / "long.jsonl"), tmp_path / "merged"
    long.write_text("".join(long.read_text().splitlines(keepends=True)[:3]))
    result = verb("merge", data, long, "--out", out, "--only-extended")
    assert (result["written"], result["extended"], result["without"]) == (3, 3, 4)
    after = open_prepared(out)
    assert [one.answer for one in after.records("train")] == ["Mass 0", "Mass 1", "Mass 2"]
    assert len(after.records("test")) == 1
    assert after.manifest["made_from"]["left_out"] == {"without": 4}
    given = ["captions", "merge", data, str(long), "--out", str(out), "--only-extended"]
    told = CliRunner().invoke(app, given, catch_exceptions=False).output
    assert "3 training records, 3 with an extended answer." in told
    assert f"4 of which {long} has nothing are left out." in told
    with pytest.raises(DataError, match="--allow-missing keeps what"):
        verb(*given[1:], "--allow-missing")


def test_merge_says_how_many_keep_what_they_had(tmp_path: Path) -> None:
    data = "bundled:vqa-rad-sample"
    long = fake_extended(data, tmp_path / "long.jsonl")
    long.write_text("".join(long.read_text().splitlines(keepends=True)[:5]))
    given = ["captions", "merge", data, str(long), "--out", str(tmp_path / "merged")]
    told = CliRunner().invoke(app, given, catch_exceptions=False).output
    assert "198 with an extended answer" in told
    assert "193 keep the extended answer that they had." in told
    given.append("--only-extended")
    with pytest.raises(DataError, match="holds another prepared folder") as refused:
        CliRunner().invoke(app, given, catch_exceptions=False)
    assert "--overwrite" in refused.value.hint
    told = CliRunner().invoke(app, [*given, "--overwrite"], catch_exceptions=False).output
    assert "5 training records, 5 with an extended answer." in told


FLIPPED, FINE, ODD = "No, nothing is there.", "Yes, a mass is there.", "Yes, of 99 mm."


def judged_captions(tmp_path: Path, texts: list[str]) -> tuple[Path, Path]:
    data, long = tmp_path / "in.jsonl", tmp_path / "long.jsonl"
    talk = [{"role": "user", "text": "Is a mass seen?"}, {"role": "assistant", "text": "Yes"}]
    rows = [{"id": f"r/{n}", "turns": talk} for n in range(len(texts))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = zip(rows, texts, strict=True)
    long.write_text("".join(json.dumps(row | {"extended": [text]}) + "\n" for row, text in both))
    return data, long


def left(tmp_path: Path, data: Path, long: Path, *reasons: str) -> tuple[list[str], Any]:
    out = tmp_path / "out.jsonl"
    given = [each for reason in reasons for each in ("--leave-out", reason)]
    result = verb("merge", data, long, "--out", out, *given)
    return [one.id for one in read_records(out)], result["left_out"]


def test_merge_leaves_out_what_is_flagged_or_rejected(tmp_path: Path) -> None:
    data, long = judged_captions(tmp_path, [FLIPPED, FINE, ODD, f"{FINE} It is round."])
    assert left(tmp_path, data, long, "flagged") == (["r/1", "r/3"], {"flagged": 2})
    only = {"answer flipped": 1}
    assert left(tmp_path, data, long, "answer flipped") == (["r/1", "r/2", "r/3"], only)
    with pytest.raises(DataError, match="nobody has judged these captions") as refused:
        left(tmp_path, data, long, "rejected")
    assert "captions review" in refused.value.hint
    with JudgementFile(str(long), "ana") as ana, JudgementFile(str(long), "bo") as bo:
        ana.add(("r/1", 0), FINE, "reject", "the side is wrong")
        ana.add(("r/0", 0), FLIPPED, "accept", "")
        ana.add(("r/2", 0), ODD, "accept", "")
        bo.add(("r/0", 0), FLIPPED, "reject", "")
        bo.add(("r/3", 0), "a text that has changed since", "reject", "")
    assert left(tmp_path, data, long, "rejected") == (["r/2", "r/3"], {"rejected": 2})
    # What somebody accepts and nobody rejects stays, whatever its signs.
    assert left(tmp_path, data, long, "flagged") == (["r/1", "r/2", "r/3"], {"flagged": 1})
    with pytest.raises(DataError, match="'rejcted' is nothing to leave out") as refused:
        left(tmp_path, data, long, "rejcted")
    assert "flagged, rejected, answer flipped" in refused.value.hint


def test_merge_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    data, long = judged_captions(tmp_path, [FLIPPED, FLIPPED])
    with pytest.raises(DataError, match="no record is left, 2 flagged"):
        left(tmp_path, data, long, "flagged")
    assert not (tmp_path / "out.jsonl").exists()


def result_line(request: dict[str, Any], content: str, status: int = 200) -> str:
    message = {"role": "assistant", "content": content}
    body = {"choices": [{"message": message}], "usage": {"prompt_tokens": 5, "total_tokens": 9}}
    response = {"status_code": status, "body": body}
    return json.dumps({"custom_id": request["custom_id"], "response": response}) + "\n"


def test_batch_files_fill_the_cache_that_generate_reads(records, tmp_path: Path) -> None:
    data, cache, batch = records(4), tmp_path / "c.sqlite", tmp_path / "batch.jsonl"
    written = verb("batch", "write", data, "--out", batch, "--model", "m", "--cache", cache)
    assert written["files"] == [{"path": str(batch), "requests": 4}]
    requests = [json.loads(line) for line in batch.read_text(encoding="utf-8").splitlines()]
    assert {request["url"] for request in requests} == {"/v1/chat/completions"}
    assert all(len(request["custom_id"]) == 64 for request in requests)
    assert all(request["body"]["max_completion_tokens"] == 1024 for request in requests)
    answers = ['{"revision": "good"}', "bad", '{"revision": 5}', '{"revision": "error"}']
    results = tmp_path / "results.jsonl"
    results.write_text(
        "".join(
            result_line(request, answer, 500 if "error" in answer else 200)
            for request, answer in zip(requests, answers, strict=True)
        )
    )
    refused = {"error": {"message": "What is at 0.0?", "code": "odd"}}
    with results.open("a") as stream:
        line = {"custom_id": "x", "response": {"status_code": 200, "body": refused}}
        stream.write(json.dumps(line) + "\n")
    read = verb("batch", "read", results, "--model", "m", "--cache", cache)
    assert (read["stored"], read["failed"]) == (1, 4)
    failures = Path(read["failures"]).read_text()
    assert len(failures.splitlines()) == 4
    assert "an error of the service" in failures and "What is at" not in failures
    again = verb("batch", "write", data, "--out", batch, "--model", "m", "--cache", cache)
    assert again["files"][0]["requests"] == 3
    (spent,) = verb("cost", "--cache", cache)
    assert (spent["model"], spent["answers"]) == ("m", 1)
    service = ("--model", "m", "--base-url", "http://localhost:9/v1", "--price", 1, 1)
    out = tmp_path / "never.jsonl"
    estimate = verb("generate", data, "--out", out, "--cache", cache, *service, "--dry-run")
    assert not out.exists()
    assert (estimate["requests"], estimate["from_cache"], estimate["duplicates"]) == (3, 1, 0)


def test_a_dry_run_tells_duplicates_from_the_cache_and_shows_a_short_sample(
    prepared, tmp_path: Path
) -> None:
    rows = [("train", f"{n}", f"What is at {n % 3}?", "A mass") for n in range(5)]
    cache, out = tmp_path / "c.sqlite", tmp_path / "never.jsonl"
    given = ["captions", "generate", prepared("data", rows), "--out", str(out), "--model", "m"]
    given += ["--base-url", "http://localhost:9/v1", "--cache", str(cache), "--dry-run"]
    told = CliRunner().invoke(app, given, catch_exceptions=False).output
    first, *rest = told.splitlines()
    assert first == (
        "5 answers: 3 requests to send, 0 answered in the cache, 2 the same as another and asked "
        "once."
    )
    assert len(rest) < 15 and "{'" not in told
    assert '    user: {"instruction": "What is at 0?", "answer": "A mass"}' in rest
    assert any(line.startswith("    system: You are a careful medical editor.") for line in rest)
    assert rest[-1] == "--json shows it whole."
    assert not out.exists()


def test_large_batches_become_several_files(records, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    source = open_records(str(records(5)))
    written = write_batches(source, tmp_path / "b.jsonl", "m", Sampling(), cache, max_requests=2)
    assert [(path.name, count) for path, count in written] == [
        ("b-001.jsonl", 2),
        ("b-002.jsonl", 2),
        ("b-003.jsonl", 1),
    ]


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match="not a line of a batch"):
        verb("batch", "read", path, "--model", "m", "--cache", tmp_path / "c.sqlite")


def test_finished_records_are_passed_over_unread(records, tmp_path: Path) -> None:
    data = records(3)
    lines = data.read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join([lines[0], '{"id": "broken", "turns": 1}', lines[2]]), "utf-8")
    found = open_records(str(data)).iterate(lambda name: name in ("broken", "r/0"))
    assert [record.id for record in found] == ["r/2"]
    with pytest.raises(DataError, match=":2"):
        list(open_records(str(data)).iterate())


def test_an_id_that_comes_twice_is_named_even_where_it_was_finished(records) -> None:
    path = records(2)
    path.write_text(path.read_text(encoding="utf-8") * 2, "utf-8")
    for skip in (lambda name: False, lambda name: True):
        with pytest.raises(DataError, match=r":3.*twice"):
            list(open_records(str(path)).iterate(skip))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('{"id": "a\\"\\u00e9b", "turns": []}', 'a"éb'),
        ('{"turns": [], "id": "a"}', None),
        ('{"id": "cut', None),
        ('{"id": 5}', None),
    ],
)
def test_the_id_at_the_head_of_a_line(line: str, name: str | None) -> None:
    assert leading_id(line) == name


def test_a_source_gives_what_the_reader_of_records_gives(records) -> None:
    path = records(5, turns=2)
    assert list(open_records(str(path)).iterate()) == list(iterate_records(path))


class FakeLlm:
    """What `vllm.LLM` offers, as far as it is used."""

    def __init__(self, model: str) -> None:
        self.batches: list[int] = []

    def chat(self, conversations: list, sampling: list, use_tqdm: bool) -> list:
        assert len(sampling) == len(conversations)
        self.batches.append(len(conversations))
        outputs = []
        for talk in conversations:
            cut = "cut" in talk[-1]["content"]
            reason = "length" if cut else "stop"
            answer = SimpleNamespace(
                text='{"revision": "long"}', token_ids=[1, 2], finish_reason=reason
            )
            outputs.append(SimpleNamespace(outputs=[answer], prompt_token_ids=[1, 2, 3]))
        return outputs


def test_vllm_answers_in_batches(records, tmp_path: Path, monkeypatch) -> None:
    module: Any = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLlm, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    out, cache = tmp_path / "out.jsonl", tmp_path / "c.sqlite"
    more = ("--model", "local", "--engine", "vllm", "--cache", cache, "--concurrency", 8)
    summary = verb("generate", records(20), "--out", out, *more)
    assert (summary["done"], summary["cost"]) == (20, 0)
    assert all(record.extended == ["long"] for record in read_records(out))

    async def several() -> tuple[VllmTransport, list[Any]]:
        transport = VllmTransport("local")
        asked = [
            transport.send(ChatRequest("local", [{"role": "user", "content": text}]))
            for text in ("a", "cut", "c")
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        await transport.close()
        return transport, found

    transport, found = asyncio.run(several())
    assert transport._llm.batches == [3]
    assert isinstance(found[1], ReplyError)
    assert (found[0].prompt_tokens, found[0].completion_tokens) == (3, 2)


def test_missing_packages_are_named(records, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setitem(sys.modules, "openai", None)
    given = ("generate", records(1), "--out", tmp_path / "o.jsonl", "--model", "m")
    with pytest.raises(MissingExtraError, match="vllm"):
        verb(*given, "--engine", "vllm")
    with pytest.raises(MissingExtraError, match=r"exgra-med\[llm\]"):
        verb(*given, "--base-url", "http://localhost:1/v1")
    assert not (tmp_path / "o.jsonl").exists()


def test_a_changed_answer_is_not_gone_on_from(records, tmp_path: Path) -> None:
    data, out, cut = records(3), tmp_path / "long.jsonl", failures_path(tmp_path / "long.jsonl")
    origin = {"model": "m", "prompt": "p"}
    asked = read_records(data)
    for record in asked[:2]:  # each by a process of its own
        with ExtendedFile(out, cut, origin) as file:
            file.write(record, ["Long."])
    whole = out.read_bytes()
    out.write_bytes(whole.replace(b"Long.", b"Lung.", 1))
    with pytest.raises(DamagedFileError, match="holds a line 1 that is not") as refused:
        ExtendedFile(out, cut, origin)
    assert "Remove that line and all behind it, and generate again" in refused.value.hint
    out.write_bytes(b"")  # as the sentence says
    with ExtendedFile(out, cut, origin) as file:
        for record in asked:
            file.write(record, ["Long."])
    assert out.read_bytes().startswith(whole)
    assert write_original(RecordFile(data, 3, None), out, tmp_path / "out.json") == 3
