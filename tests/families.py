"""Tiny random models of sixteen image-text-to-text families, each with its real processor class.

    model, processor = make("qwen2_5_vl")

Nothing is downloaded. The chat templates are short and our own; what stands where in them is as
in the published ones: system prompts, the lead of an answer, the end of a turn.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "Is there a fracture in the left lung? Yes. No.",
    "What does the image show? The heart is enlarged, normal in size and clear.",
    "Which organ is abnormal? The right kidney has a mass of 3 cm.",
    "pneumothorax pleural effusion axial coronal plane CT chest x-ray MRI brain liver finding",
    "User user Assistant assistant system model You are a helpful assistant. Answer with either",
]
WIDTH = 32
NUM_PIECES = 400
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
SQUARE = {"height": 56, "width": 56}
Made = tuple[Any, Any]


def byte_tokenizer(
    named: dict[str, str],
    *more: str,
    bos: str | None = "<s>",
    eos: str = "</s>",
    pad: str = "<pad>",
) -> Any:
    """Byte-level BPE; `named` special tokens are attributes (`image_token`), `more` are not."""
    specials = [pad, *([bos] if bos else []), eos, *named.values(), *more]
    specials = list(dict.fromkeys(specials))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PIECES + len(specials),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=dict(named),
        padding_side="left",
    )


def ids_of(tokenizer: Any, *tokens: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(token) for token in tokens]


def text_config(tokenizer: Any, **more: Any) -> dict[str, Any]:
    special = {name: getattr(tokenizer, name) for name in SPECIAL_IDS}
    return TEXT | {"vocab_size": len(tokenizer)} | special | more


SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
CONTENT = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
)


def chatml(image: str, system: bool = False, lead: str = "") -> str:
    """ChatML, as of Qwen, InternVL and LLaVA-OneVision.

    Args:
        image: what an image is written as.
        system: whether a conversation without a system prompt gets one.
        lead: what follows the head of the answer that is asked for.
    """
    helper = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    first = "{% if loop.first and m['role'] != 'system' %}" + helper + "{% endif %}"
    return (
        "{% for m in messages %}"
        + (first if system else "")
        + "{{ '<|im_start|>' + m['role'] + '\n' }}"
        + CONTENT.replace("IMAGE", image)
        + "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
        + "{{ '<|im_start|>assistant\n' }}"
        + lead
        + "{% endif %}"
    )


QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": WIDTH,
    "patch_size": 14,
}
MROPE: dict[str, Any] = {
    "rope_type": "default",
    "mrope_section": [2, 3, 3],
    "rope_theta": 1e4,
}


def qwen_tokenizer() -> tuple[Any, dict[str, int]]:
    """The tokenizer, and the configuration's ids of its special tokens."""
    more = ("<|im_start|>", "<think>", "</think>")
    tokenizer = byte_tokenizer(QWEN_TOKENS, *more, bos=None, eos="<|im_end|>", pad="<|endoftext|>")
    ids = ids_of(tokenizer, *QWEN_TOKENS.values())
    return tokenizer, dict(zip([f"{name}_id" for name in QWEN_TOKENS], ids, strict=True))


def qwen2_processor(tokenizer: Any, kind: Any) -> Any:
    image = hf.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112)
    chat = chatml(QWEN_IMAGE, system=True)
    return kind(image, tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=chat)


def qwen3_processor(tokenizer: Any, lead: str = "") -> Any:
    image = hf.Qwen2VLImageProcessorPil(patch_size=16, min_pixels=64 * 64, max_pixels=128 * 128)
    chat = chatml(QWEN_IMAGE, lead=lead)
    return hf.Qwen3VLProcessor(image, tokenizer, hf.Qwen3VLVideoProcessor(), chat_template=chat)


def qwen2_vl() -> Made:
    tokenizer, ids = qwen_tokenizer()
    vision = {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": WIDTH,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
    }
    text = text_config(tokenizer, rope_parameters=MROPE)
    config = hf.Qwen2VLConfig(vision_config=vision, text_config=text, **ids)
    processor = qwen2_processor(tokenizer, hf.Qwen2VLProcessor)
    return hf.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl() -> Made:
    tokenizer, ids = qwen_tokenizer()
    vision = QWEN_VISION | {"fullatt_block_indexes": [1], "window_size": 56}
    text = text_config(tokenizer, rope_parameters=MROPE)
    config = hf.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids)
    processor = qwen2_processor(tokenizer, hf.Qwen2_5_VLProcessor)
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> Made:
    tokenizer, ids = qwen_tokenizer()
    deep = {"deepstack_visual_indexes": [0], "num_position_embeddings": 64, "patch_size": 16}
    text = text_config(tokenizer, head_dim=16, rope_parameters=MROPE)
    config = hf.Qwen3VLConfig(vision_config=QWEN_VISION | deep, text_config=text, **ids)
    return hf.Qwen3VLForConditionalGeneration(config), qwen3_processor(tokenizer)


def qwen3_5() -> Made:
    """One layer of linear attention, one of full; answers begin after an empty thought."""
    tokenizer, ids = qwen_tokenizer()
    vision = QWEN_VISION | {"num_position_embeddings": 64, "patch_size": 16}
    text = text_config(
        tokenizer,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        layer_types=["linear_attention", "full_attention"],
        rope_parameters=MROPE | {"partial_rotary_factor": 1.0},
    )
    config = hf.Qwen3_5Config(vision_config=vision, text_config=text, **ids)
    processor = qwen3_processor(tokenizer, lead="{{ '<think>\n\n</think>\n\n' }}")
    return hf.Qwen3_5ForConditionalGeneration(config), processor


def gemma3() -> Made:
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    turn = ("<start_of_turn>", "<end_of_turn>")
    tokenizer = byte_tokenizer(named, *turn, bos="<bos>", eos="<eos>")
    boi, eoi, image, end = ids_of(tokenizer, *named.values(), turn[1])
    config = hf.Gemma3Config(
        vision_config=VISION,
        text_config=text_config(tokenizer, head_dim=16, sliding_window=16),
        mm_tokens_per_image=4,
        image_token_index=image,
        boi_token_index=boi,
        eoi_token_index=eoi,
    )
    content = CONTENT.replace("IMAGE", "<start_of_image>")
    for text in ("m['content'] }}", "c['text'] }}"):
        content = content.replace(text, text.replace(" }}", " | trim }}"))
    chat = (
        "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' }}"
        "{{ ('model' if m['role'] == 'assistant' else 'user') + '\n' }}"
        + content
        + "{{ '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size=SQUARE), tokenizer, chat_template=chat, image_seq_length=4
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    return model, processor


IDEFICS_CHAT = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize + ':' }}"
    "{% if m['content'] is string or m['content'][0]['type'] != 'image' %}{{ ' ' }}{% endif %}"
    + CONTENT.replace("IMAGE", "<image>")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def idefics_tokenizer() -> Any:
    cells = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    more = ("<|im_start|>", *names, "<video>", *cells)
    return byte_tokenizer({}, *more, bos="<|begin_of_text|>", eos="<end_of_utterance>")


def idefics_config(kind: Any, processor: Any) -> Any:
    tokenizer = processor.tokenizer
    return kind(
        vision_config=VISION,
        text_config=hf.LlamaConfig(**text_config(tokenizer)),
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


IDEFICS_SIZES: dict[str, Any] = {
    "size": {"longest_edge": 112},
    "max_image_size": {"longest_edge": 56},
}


def idefics3() -> Made:
    image = hf.Idefics3ImageProcessorPil(**IDEFICS_SIZES)
    processor = hf.Idefics3Processor(
        image, idefics_tokenizer(), image_seq_len=4, chat_template=IDEFICS_CHAT
    )
    config = idefics_config(hf.Idefics3Config, processor)
    return hf.Idefics3ForConditionalGeneration(config), processor


def smolvlm() -> Made:
    image = hf.SmolVLMImageProcessorPil(**IDEFICS_SIZES)
    video = hf.SmolVLMVideoProcessor(**IDEFICS_SIZES | {"size": {"longest_edge": 56}})
    processor = hf.SmolVLMProcessor(
        image, idefics_tokenizer(), video, image_seq_len=4, chat_template=IDEFICS_CHAT
    )
    config = idefics_config(hf.SmolVLMConfig, processor)
    return hf.SmolVLMForConditionalGeneration(config), processor


def internvl() -> Made:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_tokenizer(
        named, "<|im_start|>", bos=None, eos="<|im_end|>", pad="<|endoftext|>"
    )
    sizes = {"image_size": [56, 56], "patch_size": [14, 14]}
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**VISION | sizes),
        text_config=hf.Qwen2Config(**text_config(tokenizer)),
        image_token_id=ids_of(tokenizer, "<IMG_CONTEXT>")[0],
        image_seq_length=4,
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, max_patches=4),
        tokenizer,
        hf.InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def paligemma() -> Made:
    """Prefix attention and no chat template: what a trainer of answers has to refuse."""
    tokenizer = byte_tokenizer({"image_token": "<image>"}, bos="<bos>", eos="<eos>")
    image = hf.SiglipImageProcessorPil(size=SQUARE)
    image.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(image, tokenizer)
    config = hf.PaliGemmaConfig(
        vision_config=VISION | {"model_type": "siglip_vision_model", "projection_dim": WIDTH},
        # The processor adds its tokens of places to the tokenizer, so its length is read here.
        text_config=text_config(tokenizer, head_dim=16, model_type="gemma2"),
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


PIXTRAL_TOKENS = {
    "image_token": "[IMG]",
    "image_break_token": "[IMG_BREAK]",
    "image_end_token": "[IMG_END]",
}


def pixtral_processor(merge: int) -> Any:
    """Placeholders for blocks of `merge` x `merge` patches, and breaks at the end of a row."""
    chat = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' }}"
        + CONTENT.replace("IMAGE", "[IMG]")
        + "{{ '[/INST]' }}{% else %}"
        + CONTENT.replace("IMAGE", "")
        + "{{ eos_token }}{% endif %}{% endfor %}"
    )
    return hf.PixtralProcessor(
        hf.PixtralImageProcessorPil(size={"longest_edge": 112}, patch_size=14 * merge),
        byte_tokenizer(PIXTRAL_TOKENS, "[INST]", "[/INST]"),
        patch_size=14,
        spatial_merge_size=merge,
        chat_template=chat,
    )


def pixtral_parts(processor: Any) -> dict[str, Any]:
    return {
        "vision_config": hf.PixtralVisionConfig(**VISION | {"image_size": 112}),
        "text_config": hf.MistralConfig(**text_config(processor.tokenizer), head_dim=16),
        "image_token_index": processor.image_token_id,
    }


def mistral3() -> Made:
    processor = pixtral_processor(merge=2)
    config = hf.Mistral3Config(**pixtral_parts(processor), spatial_merge_size=2)
    return hf.Mistral3ForConditionalGeneration(config), processor


def pixtral() -> Made:
    """Pixtral as transformers has it: LLaVA's classes with a tower that takes any size."""
    processor = pixtral_processor(merge=1)
    layer = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    config = hf.LlavaConfig(**pixtral_parts(processor), **layer)
    return hf.LlavaForConditionalGeneration(config), processor


def glm4v() -> Made:
    """No end of an answer in the template: the next turn's head is what stops one."""
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    frame = [f"<|{end}_of_{kind}|>" for kind in ("image", "video") for end in ("begin", "end")]
    more = (*frame, "[gMASK]", "<sop>", "<|user|>", "<|assistant|>")
    tokenizer = byte_tokenizer(named, *more, bos=None, eos="<|endoftext|>")
    ids = ids_of(tokenizer, *named.values(), *frame)
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    config = hf.Glm4vConfig(
        vision_config=QWEN_VISION | {"image_size": 112},
        text_config=text_config(tokenizer, rope_parameters=MROPE | {"partial_rotary_factor": 1.0}),
        **{f"{name}_token_id": found for name, found in zip(names, ids, strict=True)},
    )
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 2 * 112 * 112}
    image = hf.Glm4vImageProcessorPil(size=pixels)
    chat = (
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
        + CONTENT.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>")
        + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )
    processor = hf.Glm4vProcessor(image, tokenizer, hf.Glm4vVideoProcessor(), chat_template=chat)
    model = hf.Glm4vForConditionalGeneration(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *ids_of(tokenizer, "<|user|>")]
    return model, processor


def llava_onevision() -> Made:
    named = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = byte_tokenizer(
        named, "<|im_start|>", bos=None, eos="<|im_end|>", pad="<|endoftext|>"
    )
    image, video = ids_of(tokenizer, *named.values())
    grids = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION),
        text_config=hf.Qwen2Config(**text_config(tokenizer)),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=grids,
        vision_aspect_ratio="anyres_max_9",
    )
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=grids),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chatml("<image>\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def llava_parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the configuration, and of the processor."""
    tokenizer = byte_tokenizer({"image_token": "<image>"}, "<|im_start|>", eos="<|im_end|>")
    parts = {
        "vision_config": hf.CLIPVisionConfig(**VISION),
        "text_config": hf.LlamaConfig(**text_config(tokenizer)),
        "image_token_index": ids_of(tokenizer, "<image>")[0],
    }
    settings = {
        "tokenizer": tokenizer,
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": chatml("<image>\n"),
    }
    return parts, settings


def llava_next() -> Made:
    parts, settings = llava_parts()
    grids = [[56, 112], [112, 56], [112, 112]]
    config = hf.LlavaNextConfig(**parts, image_grid_pinpoints=grids)
    image = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size=SQUARE, image_grid_pinpoints=grids
    )
    return hf.LlavaNextForConditionalGeneration(config), hf.LlavaNextProcessor(image, **settings)


def llava() -> Made:
    parts, settings = llava_parts()
    config = hf.LlavaConfig(**parts, image_seq_length=16)
    image = hf.CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=SQUARE)
    return hf.LlavaForConditionalGeneration(config), hf.LlavaProcessor(image, **settings)


def lfm2_vl() -> Made:
    """A layer of convolution and one of attention; the text's mask is all that parts two rows."""
    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    cells = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 11) for column in range(1, 11)]
    tokenizer = byte_tokenizer(named, "<|im_start|>", *cells, eos="<|im_end|>")
    tokenizer.image_thumbnail_token = "<|img_thumbnail|>"
    tower = {name: size for name, size in VISION.items() if name != "image_size"}
    text = text_config(tokenizer, layer_types=["conv", "full_attention"], block_ff_dim=64)
    config = hf.Lfm2VlConfig(
        vision_config=hf.Siglip2VisionConfig(**tower | {"patch_size": 16, "num_patches": 64}),
        text_config=hf.Lfm2Config(**text),
        image_token_id=ids_of(tokenizer, "<image>")[0],
        projector_hidden_size=32,
    )
    image = hf.Lfm2VlImageProcessor(
        tile_size=64, min_image_tokens=4, max_image_tokens=16, max_tiles=4, do_image_splitting=True
    )
    processor = hf.Lfm2VlProcessor(image, tokenizer, chat_template=chatml("<image>"))
    return hf.Lfm2VlForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[], Made]] = {
    family.__name__: family
    for family in (
        llava,
        llava_next,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_5,
        gemma3,
        idefics3,
        smolvlm,
        internvl,
        paligemma,
        mistral3,
        pixtral,
        glm4v,
        lfm2_vl,
    )
}
NEEDS_TORCHVISION = set(FAMILIES) - {"llava", "llava_next", "gemma3", "idefics3", "paligemma"}
"""Families whose processor class cannot be made without torchvision; SmolVLM's also wants
num2words."""


def make(name: str, seed: int = 0) -> Made:
    """The model in evaluation mode and the processor; weights by the seed alone.

    Weights are larger than a fresh model's, so that what it says differs from image to image.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = FAMILIES[name]()
        with torch.no_grad():
            for parameter_name, weight in model.named_parameters():
                if weight.ndim > 1 and not weight.any():
                    weight.normal_(0, 0.1)  # Gemma 3 starts its projection at zero.
                if weight.ndim > 1 and "norm" not in parameter_name:
                    weight.mul_(3.0)
    return model.eval(), processor
