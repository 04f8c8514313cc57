"""A model joined in stock classes of transformers, from small random parts on disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AyaVisionForConditionalGeneration,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from exgra_med.data.records import Record, Turn
from exgra_med.errors import CheckpointError
from exgra_med.model.assemble import assemble_parts
from exgra_med.model.bundle import load_bundle
from exgra_med.model.join import IMAGE, choose_pad_token, join_parts, joined_template, with_rows
from exgra_med.model.sizes import meta_model, model_config
from exgra_med.recipe.schema import ModelSettings, Parts, TextSettings

TEXTS = ["Is there a fracture in the left lung? Yes. What does the image show? The heart."] * 9
WIDTHS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
WIDTHS |= {"num_attention_heads": 2}
LANGUAGE: dict[str, Any] = WIDTHS | {"hidden_size": 32, "num_key_value_heads": 1}
MEAN = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "resample": 2}
SQUARE = {"size": {"height": 56, "width": 56}, "do_resize": True}
CROP = {"size": {"shortest_edge": 64}, "do_center_crop": True}
CROP |= {"crop_size": {"height": 56, "width": 56}}
SEES = {"image_size": 56, "patch_size": 14}
TOWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "clip": ("clip_vision_model", SEES, {"size": 56, "crop_size": 56}),
    "siglip": ("siglip_vision_model", SEES, SQUARE),
    # As published: made for larger images than its file prepares.
    "dinov2": ("dinov2", SEES | {"image_size": 70}, CROP),
    "dinov2-registers": ("dinov2_with_registers", SEES | {"num_register_tokens": 2}, CROP),
    "dinov3": (
        "dinov3_vit",
        {"image_size": 64, "patch_size": 14, "num_register_tokens": 4},
        SQUARE,
    ),
    "dinov3-bare": ("dinov3_vit", {"patch_size": 14, "num_register_tokens": 0}, SQUARE),
}
NUM_PATCHES = 16


def chatml(system: str = "", think: bool = False) -> str:
    """As Qwen3 (`think`) and SmolLM2 (`system`) write it."""
    lead = "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\n"
    lead += system + "<|im_end|>\\n' }}{%- endif %}\n"
    answer = "{%- if message.role == 'assistant' and '</think>' in content %}\n"
    answer += "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n{%- endif %}\n"
    return (
        (lead if system else "")
        + "{%- for message in messages %}\n"
        + "    {%- set content = message.content if message.content is string else '' %}\n"
        + (answer if think else "")
        + "    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n"
        + "{%- endfor %}\n"
        + "{%- if add_generation_prompt %}\n"
        + "    {{- '<|im_start|>assistant\\n' }}\n"
        + ("    {{- '<think>\\n\\n</think>\\n\\n' }}\n" if think else "")
        + "{%- endif %}"
    )


GEMMA = (
    "{{ bos_token }}{% set lead = '' %}{% set rest = messages %}"
    "{% if messages[0]['role'] == 'system' %}{% set lead = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% endif %}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role'])"
    " + '\n' + (lead if loop.first else '') }}{{ message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system = messages[0]['content'] | trim %}\n"
    "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system = 'Be brief.' %}\n"
    "{%- endif %}\n{{- '<|start|>system<|end|>\\n\\n' + system + '<|eot|>' }}\n"
    "{%- for message in messages %}\n"
    "    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim"
    " + '<|eot|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{%- endif %}\n"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}"
    "{%- endif %}{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if message.role == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}{%- else %}"
    "{{- ' ' + message.content | trim + eos_token }}{%- endif %}{%- endfor %}"
)
# What a file begins with, a block or a line break, is said as it is without the prelude.
BLANK = "\n  {% for message in messages %}{{ message.content }}\n{% endfor %}\n\n"
TEMPLATES = {
    "qwen3": chatml(think=True),
    "smollm2": chatml(system="You are a helpful assistant."),
    "gemma": GEMMA,
    "llama-3": LLAMA_3,
    "mistral": MISTRAL,
    "blank": BLANK,
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|start|>", "<|end|>"]
SPECIAL += ["<|eot|>", "[INST]", "[/INST]"]

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen2": ("qwen2", {}),
    "smollm2": ("llama", {"tie_word_embeddings": True}),
    "smollm3": ("smollm3", {}),
    "gemma2": ("gemma2", {"head_dim": 16, "sliding_window": 16}),
    "gemma3": ("gemma3_text", {"head_dim": 16, "sliding_window": 16}),
    "mistral": ("mistral", {"head_dim": 16, "sliding_window": None}),
}
TIED = ("smollm2", "smollm3", "gemma2", "gemma3")


def make_tokenizer(begins: bool = False, **names: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", *SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | names
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.fixture(scope="module")
def make_language(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[Any, Path] = {}

    def make(
        name: str = "qwen3", tokenizer: Any = None, template: str | None = "qwen3", **changes: Any
    ) -> Path:
        key = (name, tokenizer, template, *changes.items())
        if key in made:
            return made[key]
        kind, own = DECODERS[name]
        folder = tmp_path_factory.mktemp(name)
        tokenizer = tokenizer or make_tokenizer(begins=name.startswith("gemma"))
        tokenizer.chat_template = template and TEMPLATES[template]
        tokenizer.save_pretrained(folder)
        values = LANGUAGE | {"vocab_size": len(tokenizer)} | own | changes
        values |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
        model.generation_config.eos_token_id = [2, 6]
        model.save_pretrained(folder)
        made[key] = folder
        return folder

    return make


@pytest.fixture(scope="module")
def make_tower(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def make(name: str, **changes: Any) -> Path:
        if name in made and not changes:
            return made[name]
        kind, own, prepares = TOWERS[name]
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(1)
        config: Any = AutoConfig.for_model(kind, **(WIDTHS | own))
        AutoModel.from_config(config).save_pretrained(folder)
        settings = json.dumps(MEAN | prepares | changes)
        (folder / "preprocessor_config.json").write_text(settings, encoding="utf-8")
        if not changes:
            made[name] = folder
        return folder

    return make


@pytest.fixture(scope="module")
def qwen3(make_language: Callable[..., Path]) -> Path:
    return make_language()


@pytest.fixture(scope="module")
def siglip(make_tower: Callable[..., Path]) -> Path:
    return make_tower("siglip")


PICTURES = [
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype="uint8"))
    for size in ((60, 60), (50, 90))
]


def join(language: Path, vision: Path, connector: str, seed: int = 0) -> tuple[Any, Any]:
    return join_parts(
        Parts(language=str(language), vision=str(vision), connector=connector),  # type: ignore
        seed,
    )


def ask(processor: Any) -> Any:
    """Two questions of different length with an image each, padded on the left."""
    content = [
        [{"type": "image"}, {"type": "text", "text": "What does the image show?"}],
        [{"type": "text", "text": "Is"}, {"type": "image"}, {"type": "text", "text": "?"}],
    ]
    texts = [
        processor.apply_chat_template([{"role": "user", "content": each}], tokenize=False)
        for each in content
    ]
    return processor(
        text=texts,
        images=[[picture] for picture in PICTURES],
        return_tensors="pt",
        padding=True,
        padding_side="left",
    )


def check_whole_road(language: Path, vision: Path, connector: str, folder: Path) -> Any:
    """Joined, it reads images, learns with its tower, answers, and loads as any model does."""
    model, processor = join(language, vision, connector)
    assert not any(module.training for module in model.modules())
    tower = AutoModel.from_pretrained(vision).state_dict()
    decoder: Any = AutoModelForCausalLM.from_pretrained(language)
    for name, weight in model.model.vision_tower.state_dict().items():
        assert torch.equal(weight, tower[name]), name
    for name, weight in model.model.language_model.state_dict().items():
        own = decoder.model.state_dict()[name]
        assert torch.equal(weight[: len(own)], own), name

    batch = ask(processor)
    image_tokens = (batch["input_ids"] == model.config.image_token_id).sum(1)
    assert image_tokens.tolist() == [model.config.image_seq_length] * 2
    logits = model(**batch).logits
    logits.float().square().mean().backward()
    reached = [weight.grad for weight in model.model.vision_tower.parameters()]
    assert any(grad is not None and grad.abs().max() > 0 for grad in reached)
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().max() > 0
    if connector == "mlp":
        # Every token that the tower has beside its class token is said to the language model.
        assert len(model.get_image_features(batch["pixel_values"]).pooler_output[0]) == int(
            image_tokens[0]
        )

    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    again, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert type(again) is type(model)
    reread = AutoProcessor.from_pretrained(folder, backend="pil")
    same = ask(reread)
    for name, values in batch.items():
        assert torch.equal(values, same[name]), name
    assert torch.equal(again(**same).logits, model(**batch).logits)
    assert reread.tokenizer.chat_template == reread.chat_template == processor.chat_template
    assert again.generation_config.eos_token_id == [2, 6]
    said = again.generate(**same, max_new_tokens=3, do_sample=False)
    assert said.shape[1] > same["input_ids"].shape[1]
    return again


@pytest.mark.parametrize(
    ("tower", "connector", "num_tokens"),
    [
        ("clip", "mlp", NUM_PATCHES),
        ("clip", "pixel-shuffle", NUM_PATCHES // 4),
        ("siglip", "mlp", NUM_PATCHES),
        ("siglip", "pixel-shuffle", NUM_PATCHES // 4),
        ("dinov2", "mlp", NUM_PATCHES),
        ("dinov2", "pixel-shuffle", NUM_PATCHES // 4),
        ("dinov2-registers", "mlp", NUM_PATCHES + 2),
        ("dinov3", "mlp", NUM_PATCHES + 4),
        ("dinov3-bare", "pixel-shuffle", NUM_PATCHES // 4),
    ],
)
def test_each_tower_joins_a_qwen3(
    qwen3: Path,
    make_tower: Callable[..., Path],
    tmp_path: Path,
    tower: str,
    connector: str,
    num_tokens: int,
) -> None:
    model = check_whole_road(qwen3, make_tower(tower), connector, tmp_path)
    assert model.config.image_seq_length == num_tokens
    stock = {"mlp": LlavaForConditionalGeneration}
    assert type(model) is stock.get(connector, AyaVisionForConditionalGeneration)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is LlavaProcessor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "layer", "first"),
    [("clip", -2, 1), ("siglip", -1, 0), ("dinov2", -1, 1), ("dinov3", -1, 1)],
)
def test_the_projector_reads_the_hidden_state_of_the_tower(
    qwen3: Path, make_tower: Callable[..., Path], tower: str, layer: int, first: int
) -> None:
    folder = make_tower(tower)
    model, processor = join(qwen3, folder, "mlp")
    pixels = ask(processor)["pixel_values"]
    own: Any = AutoModel.from_pretrained(folder)
    states = own(pixels, output_hidden_states=True).hidden_states
    assert len(states) == WIDTHS["num_hidden_layers"] + 1
    expected = model.model.multi_modal_projector(states[layer][:, first:])
    features = model.get_image_features(pixels).pooler_output
    torch.testing.assert_close(torch.stack(list(features)), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "own"),
    [
        ("clip", CLIPImageProcessorPil),
        ("siglip", SiglipImageProcessorPil),
        ("dinov2", BitImageProcessorPil),
        ("dinov3", ViTImageProcessorPil),
    ],
)
def test_images_are_prepared_as_for_the_tower_alone(
    qwen3: Path, make_tower: Callable[..., Path], tower: str, own: Any
) -> None:
    folder = make_tower(tower)
    _, processor = join(qwen3, folder, "mlp")
    expected = own.from_pretrained(folder)(PICTURES, return_tensors="pt")["pixel_values"]
    assert torch.equal(ask(processor)["pixel_values"], expected)


def test_dinov3_is_prepared_as_its_own_class_does(
    qwen3: Path, make_tower: Callable[..., Path]
) -> None:
    pytest.importorskip("torchvision")
    from transformers import DINOv3ViTImageProcessor

    folder = make_tower("dinov3")
    _, processor = join(qwen3, folder, "mlp")
    own = DINOv3ViTImageProcessor.from_pretrained(folder)
    expected = own(PICTURES, return_tensors="pt")["pixel_values"]
    # Its class resizes numbers; Pillow rounds to bytes, once for each axis: one grey level.
    level = 1 / 255 / min(MEAN["image_std"])
    torch.testing.assert_close(ask(processor)["pixel_values"], expected, atol=level, rtol=0)


@pytest.mark.parametrize(
    ("name", "connector"),
    [(name, "mlp") for name in DECODERS if name != "qwen3"]
    + [("smollm2", "pixel-shuffle"), ("gemma2", "pixel-shuffle"), ("mistral", "pixel-shuffle")],
)
def test_a_siglip_joins_each_language_model(
    make_language: Callable[..., Path], siglip: Path, tmp_path: Path, name: str, connector: str
) -> None:
    model = check_whole_road(make_language(name), siglip, connector, tmp_path)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == (name in TIED)


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_texts_get_the_logits_of_the_language_model(
    make_language: Callable[..., Path], siglip: Path, name: str
) -> None:
    folder = make_language(name)
    own: Any = AutoModelForCausalLM.from_pretrained(folder)
    model, _ = join(folder, siglip, "mlp")
    ids = torch.arange(20).reshape(2, 10) + 5
    expected = own(ids).logits
    found = model(input_ids=ids).logits[..., : expected.shape[-1]]
    if name == "gemma2":  # the joined classes do not squash
        found = 30 * torch.tanh(found / 30)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_a_new_image_token_gets_the_mean_of_the_known_rows(
    make_language: Callable[..., Path], qwen3: Path, siglip: Path
) -> None:
    own: Any = AutoModelForCausalLM.from_pretrained(qwen3)
    known = own.get_input_embeddings().weight
    model, processor = join(qwen3, siglip, "mlp")
    assert processor.image_token_id == len(known) == model.config.image_token_id
    assert model.config.text_config.vocab_size == len(known) + 1
    grown = (model.get_input_embeddings().weight, model.lm_head.weight)
    for matrix, source in zip(grown, (known, own.lm_head.weight), strict=True):
        assert torch.equal(matrix[-1], source.double().mean(0).float())

    padded = make_language(vocab_size=400)
    own = AutoModelForCausalLM.from_pretrained(padded)
    model, processor = join(padded, siglip, "mlp")
    new, rows = processor.image_token_id, model.get_input_embeddings().weight
    expected = own.get_input_embeddings().weight.detach().clone()
    expected[new] = expected[:new].double().mean(0).float()
    assert (new, model.config.text_config.vocab_size) == (300, 400)
    assert torch.equal(rows, expected)


def test_each_id_has_a_row_and_no_other_row_changes() -> None:
    matrix = torch.tensor([[1.0], [7.0], [3.0], [8.0]])
    grown = with_rows(matrix, known={0, 2, 5}, ids={0, 1, 2, 5, 6})
    assert grown.flatten().tolist() == [1.0, 2.0, 3.0, 8.0, 0.0, 2.0, 2.0]


def test_a_new_image_token_may_fall_into_a_gap_of_the_ids(
    make_language: Callable[..., Path], siglip: Path
) -> None:
    characters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {each: number for number, each in enumerate(sorted(characters))}
    backend = Tokenizer(BPE(vocabulary | {"far": 290}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="!")
    folder = make_language(tokenizer=tokenizer, vocab_size=291)
    own: Any = AutoModelForCausalLM.from_pretrained(folder)
    model, processor = join(folder, siglip, "mlp")
    new, rows = processor.image_token_id, model.get_input_embeddings().weight
    assert new < 290
    expected = own.get_input_embeddings().weight.detach().clone()
    expected[new] = expected[[*range(256), 290]].double().mean(0).float()
    assert torch.equal(rows, expected)


def test_two_matrices_that_the_configuration_ties_stay_two(
    make_language: Callable[..., Path], siglip: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(make_language("smollm2"), tmp_path / "two"))
    weights = load_file(folder / "model.safetensors")
    head = weights["model.embed_tokens.weight"] + 1
    save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    model, _ = join(folder, siglip, "mlp")
    assert torch.equal(model.lm_head.weight[: len(head)], head)
    assert not model.config.tie_word_embeddings and not model.config.text_config.tie_word_embeddings
    save_file(weights | {"more": head}, folder / "model.safetensors", {"format": "pt"})
    assert "unexpected: more" in str(caught_joining(folder, siglip))


def test_an_image_token_of_the_tokenizer_is_taken(
    make_language: Callable[..., Path], siglip: Path
) -> None:
    tokenizer = make_tokenizer(extra_special_tokens={"image_token": "<|start|>"})
    folder = make_language(tokenizer=tokenizer)
    model, processor = join(folder, siglip, "mlp")
    assert processor.image_token == "<|start|>"
    assert IMAGE not in processor.tokenizer.get_vocab()
    assert len(model.get_input_embeddings().weight) == len(tokenizer)
    assert (ask(processor)["input_ids"] == model.config.image_token_id).sum() == 2 * NUM_PATCHES


def test_the_projector_follows_the_seed_and_nothing_else_does(qwen3: Path, siglip: Path) -> None:
    before = torch.get_rng_state()
    first, again, other = (join(qwen3, siglip, "mlp", seed)[0].state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {name for name in first if "multi_modal_projector" in name}
    torch.manual_seed(3)
    plain = torch.nn.Linear(16, 32)
    assert torch.equal(first["model.multi_modal_projector.linear_1.weight"], plain.weight)


@pytest.mark.slow
def test_parts_of_two_types_keep_their_values(
    make_language: Callable[..., Path], siglip: Path, tmp_path: Path
) -> None:
    language = make_language()
    folder = Path(shutil.copytree(language, tmp_path / "half"))
    half = AutoModelForCausalLM.from_pretrained(language, dtype=torch.bfloat16)
    half.save_pretrained(folder)
    small = tmp_path / "tower"
    shutil.copytree(siglip, small)
    AutoModel.from_pretrained(siglip, dtype=torch.float16).save_pretrained(small)
    as_small = Path(shutil.copytree(siglip, tmp_path / "tower of bfloat16"))
    AutoModel.from_pretrained(siglip, dtype=torch.bfloat16).save_pretrained(as_small)
    kept_types = {siglip: torch.float32, small: torch.float32, as_small: torch.bfloat16}
    for vision, kept in kept_types.items():
        model, processor = join(folder, vision, "mlp")
        assert model.model.vision_tower.dtype == kept
        assert model.lm_head.weight.dtype == torch.bfloat16
        assert model(**ask(processor)).logits.isfinite().all()
        assert model.model.multi_modal_projector.linear_1.weight.dtype == kept
        model.save_pretrained(tmp_path / "out")
        again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
        for name, weight in model.state_dict().items():
            assert torch.equal(again[name], weight.to(kept)), name


CONVERSATION = [
    ("system", ["Answer as a radiologist."]),
    ("user", ["  ", "What is ", IMAGE, "this?"]),
    ("assistant", ["<think>\nLong.\n</think>\n\nA lung."]),
    ("user", ["And ", "this?", IMAGE]),
]


def in_strings() -> list[dict[str, Any]]:
    """The texts of the conversation alone."""
    texts = [(role, [each for each in parts if each != IMAGE]) for role, parts in CONVERSATION]
    return [{"role": role, "content": "".join(parts)} for role, parts in texts]


def in_parts() -> list[dict[str, Any]]:
    """The conversation with its two images."""
    pictures = iter(PICTURES)

    def part(text: str) -> dict[str, Any]:
        if text == IMAGE:
            return {"type": "image", "image": next(pictures)}
        return {"type": "text", "text": text}

    return [
        {"role": role, "content": [part(text) for text in parts]} for role, parts in CONVERSATION
    ]


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("begin_answer", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_rendered_conversation_is_the_decoders_own_with_images(
    template: str, begin_answer: bool, system: bool
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATES[template]
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": begin_answer}
    first = 0 if system else 1
    plain = in_strings()[first:]
    expected = tokenizer.apply_chat_template(plain, **options)
    joined = joined_template(tokenizer)
    told = in_parts()[first:]
    rendered = tokenizer.apply_chat_template(told, chat_template=joined, **options)
    assert rendered.count(IMAGE) == 2
    assert f"What is {IMAGE}this?" in rendered and f"this?{IMAGE}" in rendered
    assert rendered.replace(IMAGE, "") == expected
    tokenizer.chat_template = {"default": TEMPLATES[template], "tool_use": "other"}
    assert joined_template(tokenizer) == joined
    # Messages that are strings already stay what they are.
    assert tokenizer.apply_chat_template(plain, chat_template=joined, **options) == expected
    with pytest.raises(Exception, match="not video"):
        video = [{"role": "user", "content": [{"type": "video"}]}]
        tokenizer.apply_chat_template(video, chat_template=joined, **options)


def test_a_text_begins_once(make_language: Callable[..., Path], siglip: Path) -> None:
    _, processor = join(make_language("gemma3", template="gemma"), siglip, "mlp")
    told = in_parts()
    assert processor.apply_chat_template(told).startswith("<s><start_of_turn>user\nAnswer as")
    ids = processor.apply_chat_template(told, tokenize=True, return_dict=True)["input_ids"]
    assert sum(each == 1 for each in torch.as_tensor(ids).flatten().tolist()) == 1


@pytest.mark.parametrize(
    ("name", "template", "tower", "connector", "end"),
    [
        ("qwen3", "qwen3", "clip", "pixel-shuffle", "<|im_end|>"),
        ("smollm2", "llama-3", "clip", "mlp", "<|eot|>"),
        ("gemma3", "gemma", "dinov3", "mlp", "<end_of_turn>"),
        ("mistral", None, "siglip", "mlp", "</s>"),
    ],
)
def test_a_joined_model_is_one_that_the_rest_of_this_project_takes(
    make_language: Callable[..., Path],
    make_tower: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    template: str | None,
    tower: str,
    connector: str,
    end: str,
) -> None:
    model, processor = join(make_language(name, template=template), make_tower(tower), connector)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    bundle: Any = load_bundle(tmp_path)
    assert bundle.facts.leak == 0.0 and bundle.facts.batch_difference <= 1e-5
    assert bundle.facts.text_packing == bundle.facts.image_packing == "plain"
    assert bundle.tokenizer.convert_tokens_to_ids(end) in bundle.stop_ids
    turns = [Turn(role="user", text="What is this?"), Turn(role="assistant", text="A lung.")]
    record = Record(id="1", image="1.png", turns=turns)
    told = bundle.conversation(record, PICTURES[:1], TextSettings())
    learnt, written = bundle.learnt(told, record, TextSettings())
    assert learnt == written and learnt.strip() == f"A lung.{end}"


@pytest.mark.parametrize("begins", [True, False])
def test_a_model_without_a_template_gets_a_plain_one(
    make_language: Callable[..., Path], siglip: Path, begins: bool
) -> None:
    language = make_language(tokenizer=make_tokenizer(begins), template=None)
    _, processor = join(language, siglip, "mlp")
    said = processor.apply_chat_template(in_parts(), add_generation_prompt=True)
    assert said == "<s>" * begins + (
        "System: Answer as a radiologist.\nUser: What is <image>this?\n"
        "Assistant: <think>\nLong.\n</think>\n\nA lung.</s>\nUser: And this?<image>\nAssistant:"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, "<pad>"),
        ({"pad_token": "<|end|>"}, "<|end|>"),
        ({"pad_token": None}, "<pad>"),
    ],
)
def test_padding_takes_a_token_that_is_there(
    make_language: Callable[..., Path], siglip: Path, names: dict[str, Any], expected: str
) -> None:
    model, processor = join(make_language(tokenizer=make_tokenizer(**names)), siglip, "mlp")
    assert processor.tokenizer.pad_token == expected
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id
    assert model.config.text_config.pad_token_id is None


@pytest.mark.parametrize(("unknown", "expected"), [("Ā", "Ā"), (None, "</s>")])
def test_without_a_token_for_padding_it_is_the_unknown_or_the_end(
    unknown: str | None, expected: str
) -> None:
    backend = Tokenizer(BPE({"a": 0, "Ā": 1}, []))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=unknown, eos_token="</s>"
    )
    choose_pad_token(tokenizer)
    assert tokenizer.pad_token == expected


@pytest.mark.parametrize(
    ("tower", "connector"),
    [("clip", "mlp"), ("dinov2", "pixel-shuffle"), ("dinov3", "mlp"), ("siglip", "pixel-shuffle")],
)
def test_a_run_is_planned_with_the_configuration_of_the_joined_model(
    make_language: Callable[..., Path], make_tower: Callable[..., Path], tower: str, connector: str
) -> None:
    parts: dict[str, Any] = {
        "language": str(make_language(vocab_size=400)),
        "vision": str(make_tower(tower)),
        "connector": connector,
    }
    planned = model_config(ModelSettings(parts=Parts(**parts)))
    model, _ = join_parts(Parts(**parts), seed=0)
    ours, theirs = model.config.to_dict(), planned.to_dict()
    for values in (ours, theirs):
        del values["image_token_id" if "image_token_id" in values else "image_token_index"]
        for part in (values, values["text_config"], values["vision_config"]):
            # What says nothing of the model's shape.
            for name in ("dtype", "_name_or_path", "architectures", "transformers_version"):
                part.pop(name, None)
    assert theirs == ours
    shapes = {name: weight.shape for name, weight in meta_model(planned).named_parameters()}
    assert shapes == {name: weight.shape for name, weight in model.named_parameters()}


def test_the_tower_of_a_whole_model_is_taken(
    qwen3: Path, siglip: Path, make_tower: Callable[..., Path], tmp_path: Path
) -> None:
    for kind, alone in (("clip", make_tower("clip")), ("siglip", siglip)):
        tower: Any = AutoModel.from_pretrained(alone)
        text = WIDTHS | {"vocab_size": 40, "projection_size": 16}
        values = {"vision_config": tower.config.to_dict(), "text_config": text}
        both: Any = AutoModel.from_config(AutoConfig.for_model(kind, **values))
        folder = tmp_path / kind
        both.save_pretrained(folder)
        # As a processor of today saves it.
        settings = json.loads((alone / "preprocessor_config.json").read_text(encoding="utf-8"))
        together = json.dumps({"image_processor": settings})
        (folder / "processor_config.json").write_text(together, encoding="utf-8")
        model, processor = join(qwen3, folder, "mlp")
        for name, weight in both.vision_model.state_dict().items():
            found = model.model.vision_tower.state_dict()
            assert torch.equal(found.get(name, found.get(f"vision_model.{name}")), weight), name
        assert list(processor.image_processor.image_mean) == MEAN["image_mean"]
        assert processor.image_processor.resample == 2


def caught_joining(language: Path, vision: Path, connector: str = "mlp") -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        join(language, vision, connector)
    return caught.value


def refused(language: Path, vision: Path, connector: str = "mlp") -> str:
    error = caught_joining(language, vision, connector)
    assert "\n" not in error.message
    return str(error)


def test_what_cannot_be_joined_is_one_sentence(
    qwen3: Path, siglip: Path, make_tower: Callable[..., Path], tmp_path: Path
) -> None:
    def folder_of(kind: str) -> Path:
        (tmp_path / kind).mkdir(exist_ok=True)
        config = json.dumps({"model_type": kind})
        (tmp_path / kind / "config.json").write_text(config, encoding="utf-8")
        return tmp_path / kind

    with pytest.raises(CheckpointError, match=r"connector: mlp.*join_parts"):
        assemble_parts(Parts(language=str(qwen3), vision=str(siglip), connector="mlp"), 0)
    assert "assemble_parts" in refused(qwen3, siglip, "none")
    assert "(NaFlex)" in refused(qwen3, folder_of("siglip2"))
    assert "type 't5', not one of llama" in refused(folder_of("t5"), siglip)
    assert "goes into `model.start`" in refused(folder_of("qwen2_5_vl"), siglip)
    assert "goes into `model.start`" in refused(qwen3, folder_of("qwen2_5_vl"))
    assert "There is no folder" in refused(tmp_path / "none", siglip)
    shuffle = "pixel-shuffle"
    assert "4 register tokens" in refused(qwen3, make_tower("dinov3"), shuffle)
    odd = make_tower("dinov2", crop_size={"height": 42, "width": 42})
    assert "3 x 3 patches" in refused(qwen3, odd, shuffle)
    other_size = make_tower("siglip", size={"height": 70, "width": 70})
    assert "images of 70 pixels, but the tower sees 56" in refused(qwen3, other_size)
    assert "square images" in refused(qwen3, make_tower("dinov3", size={"shortest_edge": 56}))
    assert "does not say image_mean" in refused(qwen3, make_tower("dinov2", image_mean=None))


def test_damaged_parts_are_one_sentence(
    qwen3: Path, siglip: Path, tmp_path: Path, make_tower: Callable[..., Path]
) -> None:
    def copy_of(folder: Path, name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    bare = copy_of(siglip, "bare")
    (bare / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in refused(qwen3, bare)
    cut = copy_of(qwen3, "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refused(cut, siglip)
    weights.unlink()
    assert "no weights" in refused(cut, siglip)
    silent = copy_of(qwen3, "silent")
    for path in silent.glob("*token*"):
        path.unlink()
    assert "has no tokenizer" in refused(silent, siglip)
    (silent / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "no tokenizer that can be loaded" in refused(silent, siglip)
    deep = copy_of(qwen3, "deep")
    config = json.loads((deep / "config.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4}
    (deep / "config.json").write_text(json.dumps(config), encoding="utf-8")
    message = caught_joining(deep, siglip).message
    assert "missing: model.layers.3." in message and "layers.2" not in message
    for wrong, said in (
        ({"hidden_size": "wide"}, "describes no qwen3"),
        ({"hidden_act": "wavy"}, "KeyError: 'wavy'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "holds quantised weights"),
    ):
        (deep / "config.json").write_text(json.dumps(config | wrong), encoding="utf-8")
        assert said in refused(deep, siglip)
