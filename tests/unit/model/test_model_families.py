"""Other towers and language models come through configuration alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
    ViTConfig,
)

from exgra_med.data.chat_template import encode_conversation, encode_prompt
from exgra_med.data.records import Record, Turn
from exgra_med.model.bundle import Bundle, load_bundle, save_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint
from exgra_med.model.generate import generate
from exgra_med.model.native import ExgraConfig, ExgraForConditionalGeneration, NativeBundle
from exgra_med.model.processor import make_processor

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6}
SIZES |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
TOWERS = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "vit": ViTConfig}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 1}
# Llama-3 differs from LLaMA by grouped heads, rotary base and vocabulary: all configuration.
LANGUAGES: dict[str, Any] = {
    "llama-3": lambda **sizes: LlamaConfig(rope_theta=500000.0, **sizes),
    "mistral": MistralConfig,
    "qwen": lambda **sizes: Qwen2Config(tie_word_embeddings=True, **sizes),
}


# Each tower and each language model once by default, every pair in the slow run.
PAIRS = [
    pytest.param(tower, language, marks=[] if i == j else pytest.mark.slow)
    for i, tower in enumerate(TOWERS)
    for j, language in enumerate(LANGUAGES)
]


@pytest.mark.parametrize(("tower", "language"), PAIRS)
def test_every_pair_saves_answers_and_exports(
    bundle: Bundle, tower: str, language: str, tmp_path: Path, pictures: list
) -> None:
    has_class_token = tower != "siglip"
    processor = make_processor(
        bundle.tokenizer, bundle.image_processor, 14, has_class_token=has_class_token
    )
    config = ExgraConfig(
        vision_config=TOWERS[tower](**SIZES),
        text_config=LANGUAGES[language](vocab_size=len(bundle.tokenizer), **TEXT),
        image_token_index=bundle.image_token_id,
        image_seq_length=4,
        vision_feature_select_strategy="default" if has_class_token else "full",
        connector="dci",
        connector_split=3,
    )
    made = NativeBundle(ExgraForConditionalGeneration(config).eval(), processor)
    save_bundle(made, tmp_path / "native")
    native = load_bundle(tmp_path / "native")
    export_checkpoint(str(tmp_path / "native"), tmp_path / "export")
    stock = load_bundle(tmp_path / "export")
    prompt = encode_prompt(made.tokenizer, [Turn(role="user", text="Where?")], "exgra", 4, 1)
    ids, pixels = torch.tensor([prompt]), torch.randn(1, 3, 28, 28)
    logits = [
        each.model(input_ids=ids, pixel_values=pixels).logits for each in (made, native, stock)
    ]
    assert torch.equal(logits[0], logits[1])
    assert (logits[0] - logits[2]).abs().max() <= 2e-5
    answers = [generate(each, [prompt], [pictures[:1]], 8)[0] for each in (made, native)]
    assert answers[0] == answers[1]
    text = made.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}],
        add_generation_prompt=True,
    )
    ready = made.processor(images=pictures[:1], text=text, add_special_tokens=False)
    assert ready["input_ids"][0] == prompt


def test_labels_are_exact_with_a_byte_level_tokenizer() -> None:
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    from exgra_med.model.processor import add_image_tokens

    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["### Human: Where? ### Assistant: In the lung."] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    add_image_tokens(tokenizer)
    record = Record(
        id="a",
        image="a.png",
        turns=[Turn(role="user", text="Wo?"), Turn(role="assistant", text="In der Lunge, ≥ 5 mm.")],
    )
    encoded = encode_conversation(tokenizer, record, "exgra", 4, 512)
    learnt = tokenizer.decode([label for label in encoded.labels if label != -100])
    assert learnt == " In der Lunge, ≥ 5 mm.\n###"
    prompt = encode_prompt(tokenizer, record.turns[:1], "exgra", 4, 1)
    assert encoded.input_ids[: len(prompt)] == prompt


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_answers(
    bundle: Bundle, tmp_path: Path, dtype: torch.dtype, pictures: list
) -> None:
    save_bundle(bundle, tmp_path / "native")
    half = load_bundle(tmp_path / "native", dtype)
    assert half.model.lm_head.weight.dtype == dtype
    prompt = encode_prompt(half.tokenizer, [Turn(role="user", text="Where?")], "exgra", 4, 1)
    assert generate(half, [prompt], [pictures[:1]], 8)[0].num_tokens >= 1
