"""One way to answer questions, in a process of its own: `python evaluation.py WAY JOB.json`."""

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from job import asked, load, main, opened


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """The road of `exgra-med evaluate vqa`."""
    from exgra_med.data.records import open_prepared
    from exgra_med.evaluation.engines import CheckpointEngine, EngineOptions, answer_all

    prepared = open_prepared(Path(job["prepared"]))
    wanted = {each["id"] for each in job["test"]}
    records = [each for each in prepared.records("test") if each.id in wanted]
    engine = CheckpointEngine(
        EngineOptions(
            model=job["start"],
            batch_size=32,
            max_new_tokens=job["new_tokens"],
            precision="bfloat16" if job["half"] else "float32",
        )
    )
    _ = engine.bundle
    with tempfile.TemporaryDirectory() as scratch:
        out, began = Path(scratch) / "answers.jsonl", time.process_time()
        answer_all(engine, records, prepared.image_folder(10**8), out, {})
        spent = time.process_time() - began
        lines = out.read_text(encoding="utf-8").splitlines()
    found = {each["id"]: each["text"] for each in map(json.loads, lines) if "id" in each}
    return _told(job, spent, [found[each["id"]] for each in job["test"]], "exgra-med")


def one_by_one(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' `generate`, one question after another."""
    import torch

    model, processor = _model(job)
    began, answers = time.process_time(), []
    for record in job["test"]:
        prompt = processor.apply_chat_template(asked(record), add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[[opened(record)]], return_tensors="pt")
        inputs.pop("token_type_ids", None)
        if job["half"]:
            inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=job["new_tokens"], do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return _told(job, time.process_time() - began, answers, "transformers")


def pipeline(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' pipeline `image-text-to-text`, all questions at once in batches of 32."""
    from transformers import pipeline as make

    model, processor = _model(job)
    processor.tokenizer.padding_side = "left"
    ask = make("image-text-to-text", model=model, processor=processor)
    began = time.process_time()
    made = ask(
        images=[[opened(record)] for record in job["test"]],
        text=[
            processor.apply_chat_template(asked(record), add_generation_prompt=True)
            for record in job["test"]
        ],
        batch_size=32,
        max_new_tokens=job["new_tokens"],
        return_full_text=False,
        generate_kwargs={"do_sample": False},
    )
    answers = [(each[0] if isinstance(each, list) else each)["generated_text"] for each in made]
    spent = time.process_time() - began
    return _told(job, spent, [each.strip() for each in answers], "transformers")


TASK = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
task: slake_here
test_split: test
output_type: generate_until
doc_to_visual: !function here.picture
doc_to_text: !function here.question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {new_tokens}, do_sample: false, temperature: 0, num_beams: 1}}
process_results: !function here.nothing
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 0.0}}
"""
FUNCTIONS = """
from PIL import Image

def picture(doc):
    return [Image.open(doc["picture"]).convert("RGB")]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def nothing(doc, results):
    return {"exact_match": float(results[0].strip() == doc["answer"])}
"""


def lmms_eval(job: dict[str, Any]) -> dict[str, Any]:
    """lmms-eval's LLaVA of transformers on SLAKE's questions, which come from a file; its own task
    fetches them from the hub. Its list of LLaVAs lacks the one with joined patches."""
    import lmms_eval.evaluator as evaluator
    from lmms_eval.models.simple.llava_hf import LlavaHf, model_map
    from lmms_eval.tasks import TaskManager
    from transformers import AyaVisionForConditionalGeneration

    model_map["aya_vision"] = AyaVisionForConditionalGeneration

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "slake_here"
        folder.mkdir()
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(each) + "\n" for each in job["test"]), encoding="utf-8")
        text = TASK.format(rows=rows, new_tokens=job["new_tokens"])
        (folder / "slake_here.yaml").write_text(text, encoding="utf-8")
        (folder / "here.py").write_text(FUNCTIONS, encoding="utf-8")
        model = LlavaHf(
            pretrained=job["start"],
            device="cpu",
            device_map="cpu",
            dtype="bfloat16" if job["half"] else "float32",
            batch_size=1,  # it takes no more for this family
        )
        generate, spent = model.generate_until, []

        def timed(requests: Any) -> Any:  # without what it prepares once
            began = time.process_time()
            found = generate(requests)
            spent.append(time.process_time() - began)
            return found

        model.generate_until = timed
        made = evaluator.simple_evaluate(
            model=model,
            tasks=["slake_here"],
            task_manager=TaskManager(include_path=str(folder)),
            log_samples=True,
            bootstrap_iters=0,
        )
    samples = sorted(made["samples"]["slake_here"], key=lambda each: each["doc_id"])
    answers = [each["filtered_resps"][0].strip() for each in samples]
    return _told(job, sum(spent), answers, "lmms_eval")


def _model(job: dict[str, Any]) -> tuple[Any, Any]:
    model, processor = load(job, adapters=False)
    return (model.bfloat16() if job["half"] else model).eval(), processor


def _told(job: dict[str, Any], spent: float, answers: list[str], name: str) -> dict[str, Any]:
    return {
        "seconds": [round(spent / len(job["test"]), 4)],
        "answers": answers,
        "version": f"{name} {version(name)}",
    }


if __name__ == "__main__":
    main(
        {
            "ours": ours,
            "one-by-one": one_by_one,
            "pipeline": pipeline,
            "lmms-eval": lmms_eval,
        }
    )
