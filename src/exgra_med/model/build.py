"""A model of given sizes with random weights; classes and layout are those of any checkpoint."""

from collections.abc import Iterable

import torch
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig

from exgra_med.model.native import ExgraConfig, ExgraForConditionalGeneration, NativeBundle
from exgra_med.model.processor import clip_image_processor, make_processor, train_tokenizer
from exgra_med.recipe.schema import Architecture, VisionArchitecture


def build_model(architecture: Architecture, texts: Iterable[str], seed: int) -> NativeBundle:
    """Build tokenizer (trained on `texts`), processor and model; equal arguments give equal bits,
    and torch's global generator is left as it was.
    """
    vision, language = architecture.vision, architecture.language
    tokenizer = train_tokenizer(texts, architecture.tokenizer.vocabulary_size)
    tokenizer.model_max_length = language.max_positions
    processor = make_processor(
        tokenizer, clip_image_processor(vision.image_size), vision.patch_size
    )
    config = architecture_config(architecture, len(tokenizer))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    config.image_token_index = processor.image_token_id  # type: ignore
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ExgraForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return NativeBundle(model.eval(), processor)


def architecture_config(architecture: Architecture, vocabulary_size: int) -> ExgraConfig:
    """The configuration of a model of these sizes; its special tokens are not set yet."""
    vision, language = architecture.vision, architecture.language
    return ExgraConfig(
        vision_config=vision_config(vision),
        text_config=LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=language.hidden_size,
            intermediate_size=language.intermediate_size,
            num_hidden_layers=language.num_layers,
            num_attention_heads=language.num_heads,
            max_position_embeddings=language.max_positions,
        ),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=vision.feature_layer,
        connector=architecture.connector,
        connector_split=vision.num_layers // 2,
    )


def vision_config(vision: VisionArchitecture) -> CLIPVisionConfig:
    """The configuration of a vision tower of these sizes."""
    return CLIPVisionConfig(
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_hidden_layers=vision.num_layers,
        num_attention_heads=vision.num_heads,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
    )
