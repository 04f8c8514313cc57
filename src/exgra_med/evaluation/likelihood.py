"""Mean log-likelihood a token of each option as the answer, with the model that is evaluated."""

from typing import TYPE_CHECKING

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, Turn

if TYPE_CHECKING:
    from exgra_med.model.bundle import Bundle


def option_scores(
    bundle: "Bundle", record: Record, images: ImageFolder, template: str, max_length: int
) -> list[float]:
    """Score every option of a record as its answer.

    The answer's end marker counts too, so an option is not preferred for being the beginning of
    another. All options go through the model in one batch; the image is encoded once.

    Returns:
        Mean log-likelihood a token (natural logarithm), one an option.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from exgra_med.data.chat_template import IGNORE_INDEX, encode_conversation
    from exgra_med.model.bundle import pixel_values

    record = record.first_exchange()
    options = [str(option) for option in record.meta["options"]]
    encoded = [
        encode_conversation(
            bundle.tokenizer,
            _answered(record, option),
            template,
            bundle.num_image_tokens,
            max_length,
        )
        for option in options
    ]
    model, device = bundle.model, bundle.model.device
    rows = [torch.tensor(each.input_ids) for each in encoded]
    ids = pad_sequence(rows, True, bundle.pad_token_id).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in rows], True).to(device)
    targets = [torch.tensor(each.labels) for each in encoded]
    labels = pad_sequence(targets, True, IGNORE_INDEX).to(device)
    with torch.inference_mode():
        features = None
        if record.images:
            opened = [images.open(name, record.id) for name in record.images]
            pixels = pixel_values(bundle, opened).to(device, model.dtype)
            features = model.image_features(pixels).repeat(len(options), 1, 1)
        states = model.model.language_model(
            inputs_embeds=model.insert_images(ids, features), attention_mask=mask
        ).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        places = wanted != IGNORE_INDEX
        logits = model.lm_head(states[places]).float()
        chosen = logits.log_softmax(-1).gather(1, wanted[places].unsqueeze(1)).squeeze(1)
        sums = torch.zeros(len(options), device=device).index_add(0, places.nonzero()[:, 0], chosen)
        return (sums / places.sum(1)).tolist()


def _answered(record: Record, option: str) -> Record:
    # The options are scored, not shown: the question stands alone in front of each of them.
    meta: dict[str, object] = {key: value for key, value in record.meta.items() if key != "options"}
    return record.model_copy(
        update={
            "turns": [record.turns[0], Turn(role="assistant", text=option)],
            "meta": meta,
        }
    )
