"""A model joined from a saved language model and a saved CLIP."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from exgra_med.errors import CheckpointError
from exgra_med.model.assemble import add_rows, assemble_parts
from exgra_med.model.bundle import load_bundle, save_bundle
from exgra_med.model.convert.tokenizer import read_base_tokenizer
from exgra_med.model.processor import RESERVED, SPACE, llama_tokenizer
from exgra_med.recipe.schema import Parts

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1}
TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 24}
TOWER |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
TEXTS = ["### Human: Where is the lesion? ### Assistant: In the left lung."] * 9
ADDED = ["[PAD]", "<im_patch>", "<im_start>", "<im_end>"]


def save_llama_tokenizer(folder: Path) -> int:
    """As a base model has it: the pieces, and none of our four tokens."""
    pieces = [*RESERVED, SPACE, *"Whertislon?#Huma:AvIfg.", SPACE + "t"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = llama_tokenizer(vocabulary, [(SPACE, "t")])
    backend = Tokenizer(BPE(vocabulary, [(SPACE, "t")], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = tokenizer.backend_tokenizer.normalizer
    backend.decoder = tokenizer.backend_tokenizer.decoder
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    plain.save_pretrained(folder)
    return len(vocabulary)


def save_byte_level_tokenizer(folder: Path) -> int:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    vision = CLIPVisionConfig(**TOWER).to_dict()
    text = CLIPTextConfig(**(SIZES | {"vocab_size": 40})).to_dict()
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    rows = save_llama_tokenizer(folder)
    LlamaForCausalLM(LlamaConfig(vocab_size=rows, **SIZES)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("connector", ["none", "dci"])
def test_the_joined_model_is_its_parts_with_four_more_rows(
    llama: Path, clip: Path, tmp_path: Path, connector: Any
) -> None:
    state = torch.get_rng_state()
    parts = Parts(language=str(llama), vision=str(clip), connector=connector)
    save_bundle(assemble_parts(parts, seed=0), tmp_path / "joined")
    assert torch.equal(state, torch.get_rng_state())
    joined = load_bundle(tmp_path / "joined")
    base, tower = load_file(llama / "model.safetensors"), load_file(clip / "model.safetensors")
    ours = joined.model.state_dict()
    rows = len(base["lm_head.weight"])
    for name, tensor in base.items():
        name = name.replace("model.", "model.language_model.")
        assert torch.equal(ours[name][: len(tensor)], tensor), name
    for name, tensor in tower.items():
        if name.startswith("vision_model."):
            own = f"model.vision_tower.{name.removeprefix('vision_model.')}"
            assert torch.equal(ours[own], tensor), name
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        added = ours[name.replace("model.", "model.language_model.")][rows:]
        assert added.shape == (4, 32)
        assert (added - base[name].mean(0)).abs().max() <= 1e-7
    ids = joined.tokenizer.convert_tokens_to_ids(ADDED)
    assert ids == list(range(rows, rows + 4))
    assert joined.model.config.image_token_id == ids[1]
    assert joined.num_image_tokens == 4
    text = joined.model.config.text_config
    assert (text.pad_token_id, text.bos_token_id, text.eos_token_id) == (rows, 1, 2)
    language = LlamaForCausalLM.from_pretrained(llama)
    probe = torch.arange(3, 12).unsqueeze(0)
    with torch.no_grad():
        difference = language(probe).logits - joined.model(probe).logits[..., :rows]
    assert difference.abs().max() <= 1e-6


def test_equal_seeds_give_equal_projectors(llama: Path, clip: Path) -> None:
    parts = Parts(language=str(llama), vision=str(clip))
    one, two, other = (
        assemble_parts(parts, seed).model.model.multi_modal_projector.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["linear_1.weight"], other["linear_1.weight"])


def test_a_tower_is_not_rounded_to_the_type_of_the_language_model(
    llama: Path, clip: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    LlamaForCausalLM.from_pretrained(llama, dtype=torch.float16).save_pretrained(half)
    save_llama_tokenizer(half)
    save_bundle(assemble_parts(Parts(language=str(half), vision=str(clip)), 0), tmp_path / "joined")
    loaded = load_bundle(tmp_path / "joined").model.model.vision_tower.state_dict()
    source = load_file(clip / "model.safetensors")
    assert all(torch.equal(source[f"vision_model.{name}"], loaded[name]) for name in loaded)
    stored = load_file(tmp_path / "joined" / "model.safetensors")
    assert stored["lm_head.weight"].dtype == torch.float16


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_other_families_come_through_configuration(family: str, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / family
    if family == "mistral":
        rows = save_llama_tokenizer(folder)
        model = MistralForCausalLM(MistralConfig(vocab_size=rows, **SIZES))
    else:
        rows = save_byte_level_tokenizer(folder)
        # Its embedding has more rows than its tokenizer has tokens, as the published ones have.
        sizes = SIZES | {"vocab_size": rows + 9, "tie_word_embeddings": True}
        model = Qwen2ForCausalLM(Qwen2Config(**sizes))
    model.save_pretrained(folder)
    save_bundle(assemble_parts(Parts(language=str(folder), vision=str(clip)), 0), tmp_path / "new")
    joined = load_bundle(tmp_path / "new")
    assert joined.tokenizer.convert_tokens_to_ids(ADDED) == list(range(rows, rows + 4))
    added = joined.model.lm_head.weight[rows : rows + 4]
    assert (added - model.lm_head.weight[:rows].mean(0)).abs().max() <= 1e-7
    assert joined.model.lm_head.weight is not joined.model.get_input_embeddings().weight
    probe = torch.arange(3, 12).unsqueeze(0)
    with torch.no_grad():
        difference = model(probe).logits[..., :rows] - joined.model(probe).logits[..., :rows]
    assert difference.abs().max() <= 1e-6


def test_the_tokenizer_strips_blanks_around_image_tokens_and_starts_words_anew(llama: Path) -> None:
    tokenizer = read_base_tokenizer(llama)
    ids = tokenizer("#\n<im_start><im_patch><im_end>\n#", add_special_tokens=False)["input_ids"]
    hash_id, patch = tokenizer.convert_tokens_to_ids(["#", "<im_patch>"])
    space = tokenizer.convert_tokens_to_ids(SPACE)
    assert ids == [space, hash_id, patch + 1, patch, patch + 2, space, hash_id]


def test_new_rows_do_not_count_themselves() -> None:
    grown = add_rows(torch.tensor([[1.0], [3.0], [9.0]]), num_known=2, num_rows=4)
    assert grown.tolist() == [[1.0], [3.0], [2.0], [2.0]]


def test_what_is_no_language_model_is_refused(clip: Path, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'clip', not one of llama"):
        assemble_parts(Parts(language=str(clip), vision=str(clip)), 0)
    with pytest.raises(CheckpointError, match="not a CLIP vision tower"):
        assemble_parts(Parts(language=str(llama), vision=str(llama)), 0)
    broken = tmp_path / "broken"
    model = LlamaForCausalLM.from_pretrained(llama)
    model.save_pretrained(broken, state_dict=dict(list(model.state_dict().items())[:-1]))
    save_llama_tokenizer(broken)
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        assemble_parts(Parts(language=str(broken), vision=str(clip)), 0)
