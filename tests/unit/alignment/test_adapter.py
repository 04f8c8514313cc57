"""The adapter on tiny random models of six families, built from their configurations."""

from types import SimpleNamespace

import pytest
import torch

from exgra_med.alignment import MatchingError
from exgra_med.alignment.adapter import AlignmentAdapter, image_nodes
from exgra_med.alignment.pooling import AttentionPooling, mean_pool

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 14,
}
QWEN_TEXT = TEXT | {
    "rope_parameters": {
        "rope_type": "default",
        "mrope_section": [2, 3, 3],
        "rope_theta": 1e4,
    }
}
QWEN_TOKENS = {
    "image_token_id": 98,
    "video_token_id": 97,
    "vision_start_token_id": 96,
    "vision_end_token_id": 95,
}


def squares(*shape: int):
    return lambda images: {"pixel_values": torch.randn(images, *shape)}


def grids(images: int) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.randn(16 * images, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * images),
    }


def tiles(images: int) -> dict[str, torch.Tensor]:
    sizes = torch.tensor([[28, 28]] * images)
    return {"pixel_values": torch.randn(images, 2, 3, 28, 28), "image_sizes": sizes}


def llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Model

    vision, text = CLIPVisionConfig(**VISION), LlamaConfig(**TEXT)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=98)
    return Model(config), squares(3, 28, 28)


def llava_onevision():
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig
    from transformers import LlavaOnevisionForConditionalGeneration as Model

    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION),
        text_config=Qwen2Config(**TEXT),
        image_token_index=98,
        video_token_index=97,
        image_grid_pinpoints=[[28, 28], [28, 56]],
    )
    return Model(config), tiles


def qwen2_5_vl():
    from transformers import Qwen2_5_VLConfig
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    vision = QWEN_VISION | {"fullatt_block_indexes": [1], "window_size": 56}
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=QWEN_TEXT, **QWEN_TOKENS)
    return Model(config), grids


def qwen3_vl():
    from transformers import Qwen3VLConfig
    from transformers import Qwen3VLForConditionalGeneration as Model

    vision = QWEN_VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    text = QWEN_TEXT | {"head_dim": 16}
    return Model(Qwen3VLConfig(vision_config=vision, text_config=text, **QWEN_TOKENS)), grids


def gemma3():
    from transformers import Gemma3Config
    from transformers import Gemma3ForConditionalGeneration as Model

    config = Gemma3Config(
        vision_config=VISION | {"image_size": 56},
        text_config=TEXT | {"head_dim": 16, "sliding_window": 16},
        mm_tokens_per_image=4,
        image_token_index=98,
        boi_token_index=97,
        eoi_token_index=96,
    )
    return Model(config), squares(3, 56, 56)


def idefics3():
    from transformers import Idefics3Config, LlamaConfig
    from transformers import Idefics3ForConditionalGeneration as Model

    config = Idefics3Config(
        vision_config=VISION | {"image_size": 56},
        text_config=LlamaConfig(**TEXT),
        scale_factor=2,
        image_token_id=98,
        pad_token_id=0,
    )
    return Model(config), squares(1, 3, 56, 56)


FAMILIES = [llava, llava_onevision, qwen2_5_vl, qwen3_vl, gemma3, idefics3]


def texts(samples: int, length: int, padding: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 90, (samples, length))
    pad = torch.zeros(samples, padding, dtype=torch.long)
    mask = torch.cat([torch.ones_like(ids), pad], 1)
    return {"input_ids": torch.cat([ids, pad], 1), "attention_mask": mask}


def conversation(model, vision: dict, images: int) -> dict[str, torch.Tensor]:
    """Rows of one image and four words, with what the family wants beside them."""
    features = model.get_image_features(**vision)
    features = getattr(features, "pooler_output", features)
    place = torch.full((images, len(features[0])), 98)
    words = torch.randint(3, 90, (images, 4))
    ids = torch.cat([place, words], 1)
    labels = torch.cat([torch.full_like(place, -100), words], 1)
    kinds = (ids == 98).long()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, **vision}
    if "Qwen" in type(model).__name__:
        batch["mm_token_type_ids"] = kinds
    if "Gemma" in type(model).__name__:
        batch["token_type_ids"] = kinds
    return batch


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_training_step_of_any_family(family) -> None:
    model, vision = family()
    adapter = AlignmentAdapter(model)
    pictures = vision(4)
    batch = conversation(model, pictures, 4)
    calls = []
    original = type(model.base_model).get_image_features

    def counted(*args, **kwargs):
        calls.append(1)
        return original(model.base_model, *args, **kwargs)

    model.base_model.get_image_features = counted
    with adapter.reuse_image_features(model):
        lm_loss = model(**batch).loss
    aligned = adapter(model, pictures, [1, 1, 1, 1], texts(4, 3), texts(4, 6), generator=0)
    assert len(calls) == 1, "the main pass has the features; nobody computes them again"
    aligned.loss.backward(retain_graph=True)
    decoder = [w.grad for w in model.get_decoder().parameters() if w.grad is not None]
    assert max(float(gradient.abs().max()) for gradient in decoder) > 0
    outside = {id(w) for w in model.get_decoder().parameters()}
    towers = [w.grad for w in model.parameters() if id(w) not in outside and w.grad is not None]
    assert max(float(gradient.abs().max()) for gradient in towers) > 0
    lm_loss.backward()
    assert aligned.num_nodes == 4 and torch.isfinite(lm_loss)
    assert not [name for name in adapter.state_dict() if not name.startswith("align.")]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_padding_does_not_move_a_text(family) -> None:
    model, _ = family()
    adapter = AlignmentAdapter(model.eval())
    everyone = torch.ones(3, dtype=torch.bool)
    torch.manual_seed(1)
    short = adapter.text_nodes(model, texts(3, 5), everyone)
    torch.manual_seed(1)
    long = adapter.text_nodes(model, texts(3, 5, padding=4), everyone)
    assert torch.allclose(short, long, atol=1e-5)


def test_samples_without_an_image_leave_the_graph() -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model.eval(), dropout=0.0)
    answer, extended, pictures = texts(5, 3), texts(5, 4), vision(4)
    counts = [1, 0, 2, 1, 0]
    mixed = adapter(model, pictures, counts, answer, extended, generator=0)
    assert mixed.num_nodes == 3
    kept = [0, 2, 3]
    alone = adapter(
        model,
        pictures,
        [1, 2, 1],
        {name: rows[kept] for name, rows in answer.items()},
        {name: rows[kept] for name, rows in extended.items()},
        generator=0,
    )
    assert torch.equal(mixed.loss, alone.loss)


def test_nodes_are_means_over_tokens_tiles_and_images() -> None:
    ragged = [torch.full((2, 3), 1.0), torch.full((5, 3), 3.0), torch.full((1, 3), 8.0)]
    assert image_nodes(ragged, [2, 0, 1])[:, 0].tolist() == [2.0, 8.0]
    flat = torch.arange(8.0).view(8, 1)
    assert image_nodes(flat, [1, 1])[:, 0].tolist() == [1.5, 5.5]
    tiled = SimpleNamespace(pooler_output=torch.arange(4.0).view(4, 1, 1))
    assert image_nodes(tiled, [1, 1])[:, 0].tolist() == [0.5, 2.5]
    with pytest.raises(MatchingError, match="do not belong"):
        image_nodes(ragged, [1, 1])
    with pytest.raises(MatchingError, match="No sample"):
        image_nodes(ragged, [0, 0])


def test_a_model_without_image_features_is_refused_in_words() -> None:
    with pytest.raises(MatchingError, match="Linear has no get_image_features"):
        AlignmentAdapter(torch.nn.Linear(2, 2))


def test_pooling_by_tokens_padded_and_attention() -> None:
    hidden = torch.randn(2, 4, 8)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    tokens = mean_pool(hidden, mask)
    assert torch.allclose(tokens[0], hidden[0, :2].mean(0), atol=1e-6)
    assert torch.allclose(mean_pool(hidden, mask, "padded"), hidden.mean(1))
    attention = AttentionPooling(8)
    assert torch.allclose(attention(hidden, mask), tokens, atol=1e-6)
    attention(hidden, mask)[:, 0].sum().backward()
    assert attention.query.grad.abs().max() > 0
    with pytest.raises(MatchingError, match="no token"):
        mean_pool(hidden, mask * 0)
    with pytest.raises(MatchingError, match="No mean"):
        mean_pool(hidden, mask, "first")


def test_attention_pooling_is_its_definition() -> None:
    hidden = torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]])
    pool = AttentionPooling(6)
    torch.nn.init.normal_(pool.query)
    pooled = pool(hidden.float(), mask)
    for row, kept in zip(range(2), ([0, 1, 3], [0]), strict=True):
        own = hidden[row, kept]
        weights = (own @ pool.query.detach().double() / 6**0.5).softmax(0)
        assert torch.allclose(pooled[row].double(), weights @ own, atol=1e-5)


def test_attention_pooling_learns_with_the_adapter() -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model, pooling="attention", num_layers=1)
    adapter(model, vision(4), [1] * 4, texts(4, 3), texts(4, 4), generator=0).loss.backward()
    assert adapter.attention.query.grad.abs().max() > 0
