"""The processor: tokenizer, image processor and chat template in the form servers understand."""

from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from exgra_med.data.chat import IMAGE_BLOCK, IMAGE_END, IMAGE_PATCH, IMAGE_START, TEMPLATES

_EXGRA = TEMPLATES["exgra"]
_WITHOUT_IMAGE_TOKENS = "".join(
    f" | replace('{token}', '')" for token in (IMAGE_PATCH, IMAGE_START, IMAGE_END)
)
# As in training, images follow the text of their turn, whatever the order of its parts.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    + _EXGRA.opening.replace("\n", "{{ '\\n' }}")
    + "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set text = message['content'] -%}{%- else -%}"
    "{%- set text = message['content'] | selectattr('type', 'equalto', 'text')"
    " | map(attribute='text') | join('\\n') -%}{%- endif -%}"
    "{%- set said = text" + _WITHOUT_IMAGE_TOKENS + " | trim -%}"
    "{%- if message['role'] == 'assistant' -%}{{ ' ' + said + '\\n###' }}"
    "{%- elif message['role'] == 'user' -%}{{ ' Human: ' + said }}"
    "{%- if message['content'] is not string -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}{{ '\\n" + IMAGE_BLOCK + "' }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '\\n###' }}"
    "{%- if not loop.last or add_generation_prompt -%}{{ ' Assistant:' }}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
)
"""The template `exgra` in Jinja; system messages are left out, as training knew only one."""


def clip_image_processor(image_size: int) -> CLIPImageProcessorPil:
    """The original's: shortest side to `image_size` pixels (bicubic), centre crop, normalise."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
    )


def make_processor(
    tokenizer: PreTrainedTokenizerFast,
    image_processor: CLIPImageProcessorPil,
    patch_size: int,
    has_class_token: bool = True,
) -> LlavaProcessor:
    """Join tokenizer and image processor.

    Args:
        tokenizer: knows the image tokens.
        image_processor: makes the pixel values.
        patch_size: pixels along each side of one patch of the vision tower.
        has_class_token: whether the tower's first token is no patch (CLIP, ViT; not SigLIP).
    """
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default" if has_class_token else "full",
        num_additional_image_tokens=int(has_class_token),
        image_token=IMAGE_PATCH,
        chat_template=CHAT_TEMPLATE,
    )
