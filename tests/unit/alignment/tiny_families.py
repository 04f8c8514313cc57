"""Tiny random models of seven families, and batches for them."""

import torch

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


def internvl():
    """A row of features for each tile; which image a tile is of, only the processor knows."""
    from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig
    from transformers import InternVLForConditionalGeneration as Model

    vision = VISION | {"image_size": [28, 28], "patch_size": [14, 14]}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision),
        text_config=LlamaConfig(**TEXT),
        image_token_id=98,
    )
    return Model(config), squares(3, 28, 28)


FAMILIES = [llava, llava_onevision, qwen2_5_vl, qwen3_vl, gemma3, idefics3, internvl]


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
