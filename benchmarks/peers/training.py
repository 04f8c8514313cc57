"""One way to train, in a process of its own: `python training.py WAY JOB.json`."""

import tempfile
import time
from pathlib import Path
from typing import Any

from job import Clock, asked, collate, connector_of, load, lora, main, opened, peak_memory


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`exgra-med train`, without graphs."""
    return _ours(job, ["stages.instruct.alignment=null"])


def ours_sharing(job: dict[str, Any]) -> dict[str, Any]:
    """The same; four questions about a picture share its tokens, as in the small fine-tuning."""
    changes = ["stages.instruct.alignment=null", "stages.instruct.questions_per_image=4"]
    return _ours(job, changes)


def ours_aligned(job: dict[str, Any]) -> dict[str, Any]:
    """`exgra-med train` with graphs: every answer, and its extended answer, is read once more."""
    return _ours(job, [])


def _ours(job: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    from products import Products

    from exgra_med.recipe.load import load_recipe
    from exgra_med.training.stages import begin_run, train_run

    clock, products, counting = Clock(), Products(), []
    measured = job["warm_up"] + job["steps"]

    class Reporter:
        def start(self, *told: Any, **more: Any) -> None:
            clock.times = [time.process_time()]
            counting.append(told[-1])

        def advance(self, *told: Any, **more: Any) -> None:
            clock.tick()
            # One more step is for counting its products, which takes time too.
            if counting[-1] == "steps" and len(clock.times) == measured + 1:
                products.__enter__()

        def finish(self) -> None:
            pass

    changes = [
        f"model.start={job['start']}",
        f"data.folder={job['prepared']}",
        "data.fraction=1",
        "data.held_out_split=null",
        "stages.instruct.epochs=100",
        f"stages.instruct.max_steps={measured + 1}",
        f"stages.instruct.batch_size={job['batch_size']}",
        f"stages.instruct.precision={'bfloat16' if job['half'] else 'float32'}",
        f"stages.instruct.lora.rank={job['rank']}",
        f"stages.instruct.learning_rate={job['learning_rate']}",
        "stages.instruct.save_every_steps=null",
        *changes,
    ]
    with tempfile.TemporaryDirectory() as scratch:
        recipe = load_recipe("small/aligned", changes).recipe
        train_run(begin_run(Path(scratch) / "run", recipe, False), Reporter())
    products.__exit__(None, None, None)
    peak = peak_memory()
    return {
        "seconds": clock.seconds(job["warm_up"])[: job["steps"]],
        "version": _version("exgra-med"),
        "peak_gigabytes": round(peak / 1e9, 2),
        "products_share": round(products.seconds() / clock.seconds(measured)[0], 3),
        "step_gigaflops": round(products.flops() / 1e9, 1),
    }


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' Trainer with a collator of one's own, as its documentation shows."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    clock, (model, processor) = Clock(), load(job)

    class Ticks(TrainerCallback):
        def on_step_end(self, *told: Any, **more: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as scratch:
        Trainer(
            model=model,
            args=TrainingArguments(output_dir=scratch, **_arguments(job)),
            train_dataset=job["train"],
            data_collator=lambda records: collate(processor, records),
            callbacks=[Ticks()],
        ).train()
    return {"seconds": clock.seconds(job["warm_up"]), "version": _version("transformers")}


def trl(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's SFTTrainer: prompts, completions and pictures, its own collator."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    clock, (model, processor) = Clock(), load(job, adapters=False)

    class Ticks(TrainerCallback):
        def on_step_end(self, *told: Any, **more: Any) -> None:
            clock.tick()

    rows = {
        "prompt": [asked(record) for record in job["train"]],
        "completion": [
            [{"role": "assistant", "content": [{"type": "text", "text": record["answer"]}]}]
            for record in job["train"]
        ],
        "images": [[opened(record)] for record in job["train"]],
    }
    with tempfile.TemporaryDirectory() as scratch:
        settings = SFTConfig(output_dir=scratch, max_length=None, **_arguments(job))
        made = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_dict(rows),
            processing_class=processor,
            peft_config=lora(job),
            callbacks=[Ticks()],
        )
        for weight in connector_of(made.model):
            weight.requires_grad_(True)
        made.train()
    return {"seconds": clock.seconds(job["warm_up"]), "version": _version("trl")}


def swift(job: dict[str, Any]) -> dict[str, Any]:
    """ms-swift's fine-tuning; the model is registered as its documentation shows, with the
    template and the parts of a LLaVA of transformers."""
    import json

    from swift.model import ModelGroup, ModelMeta, register_model
    from swift.model.model_arch import ModelArch
    from swift.model.models.llava import LlavahfLoader
    from swift.pipelines import sft_main
    from transformers import AutoModelForImageTextToText, TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    clock = Clock()

    class Loader(LlavahfLoader):
        def get_model(self, *told: Any, **more: Any) -> Any:
            self.auto_model_cls = AutoModelForImageTextToText
            return super().get_model(*told, **more)

    template, parts = "llava1_5_hf", ModelArch.llava_hf
    meta = ModelMeta("here", [ModelGroup([])], Loader, template, parts, is_multimodal=True)
    register_model(meta)

    class Ticks(TrainerCallback):
        def on_step_end(self, *told: Any, **more: Any) -> None:
            clock.tick()

    DEFAULT_CALLBACKS.append(Ticks)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for record in job["train"]:
                told = [
                    {"role": "user", "content": "<image>" + record["question"]},
                    {"role": "assistant", "content": record["answer"]},
                ]
                file.write(json.dumps({"messages": told, "images": [record["picture"]]}) + "\n")
        arguments = _arguments(job) | {
            "model": job["start"],
            "model_type": "here",
            "dataset": str(rows),
            "output_dir": scratch,
            "tuner_type": "lora",
            "lora_rank": job["rank"],
            "torch_dtype": "float32",
            "freeze_vit": True,
            "freeze_aligner": False,
            "load_from_cache_file": False,
        }
        sft_main([text for name, value in arguments.items() for text in _option(name, value)])
    return {"seconds": clock.seconds(job["warm_up"]), "version": _version("ms-swift")}


def _option(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [
        f"--{name}",
        *(
            str(each).lower() if isinstance(each, bool) else str(each)
            for each in values or ["none"]
        ),
    ]


def _arguments(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": job["batch_size"],
        "gradient_accumulation_steps": 1,
        "max_steps": job["warm_up"] + job["steps"],
        "learning_rate": job["learning_rate"],
        "bf16": job["half"],
        "use_cpu": True,
        "gradient_checkpointing": False,  # memory is not short here, and it costs a third more time
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }


def nanovlm(job: dict[str, Any]) -> dict[str, Any]:
    """The way of nanoVLM's loop: padding on the left to the longest of the batch, the tower in
    every step, logits of all positions, autocast, AdamW, clipping."""
    import torch

    clock, (model, processor) = Clock(), load(job)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=job["learning_rate"])
    model.train()
    for step in range(job["warm_up"] + job["steps"]):
        own = [
            job["train"][n % len(job["train"])]
            for n in range(step * job["batch_size"], (step + 1) * job["batch_size"])
        ]
        inputs = collate(processor, own, padding_side="left")
        with torch.autocast("cpu", torch.bfloat16, enabled=job["half"]):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()
    return {"seconds": clock.seconds(job["warm_up"]), "version": _version("torch")}


def _version(name: str) -> str:
    from importlib.metadata import version

    return f"{name} {version(name)}"


if __name__ == "__main__":
    main(
        {
            "ours": ours,
            "ours-sharing": ours_sharing,
            "ours-aligned": ours_aligned,
            "trainer": trainer,
            "trl": trl,
            "nanovlm": nanovlm,
            "ms-swift": swift,
        }
    )
