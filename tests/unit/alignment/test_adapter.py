"""The adapter around sixteen families, each with its own processor: tiles, several images, none."""

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from exgra_med.alignment import MatchingError
from exgra_med.alignment.adapter import AlignmentAdapter
from exgra_med.alignment.image_nodes import image_token_id, mean_over
from families import FAMILIES, NEEDS_TORCHVISION, make

ANSWERS = ["Yes.", "The left lung is enlarged.", "kidney", "No.", "A mass of 3 cm."]
EXTENDED = [f"{answer} It is what the image shows." for answer in ANSWERS]


def picture(height: int, width: int, seed: int) -> Image.Image:
    numbers = np.random.default_rng(seed)
    return Image.fromarray(numbers.integers(0, 255, (height, width, 3), dtype=np.uint8))


SAMPLES = [
    ([picture(60, 60, 0)], "What does the image show?"),
    ([picture(60, 130, 1)], "Is it abnormal?"),
    ([picture(60, 60, 2), picture(130, 60, 3)], "Which is abnormal?"),
    ([], "Is a lung an organ?"),
    ([picture(130, 130, 4)], "Which organ?"),
]
"""Square, wide enough for tiles, two of unequal size, text only, and large."""
SHOWN = [0, 1, 2, 4]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return available(request.param)


def available(name: str) -> str:
    if name in NEEDS_TORCHVISION:
        pytest.importorskip("torchvision")
    if name == "smolvlm":
        pytest.importorskip("num2words")
    return name


def asked(processor: Any, images: list, question: str) -> str:
    if processor.chat_template is None:
        return f"{processor.image_token * len(images)}<bos>{question}\n"
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turns, add_generation_prompt=True)


def conversations(model: Any, processor: Any, samples: list) -> dict[str, torch.Tensor]:
    """What any collator returns, with every token of text as a label."""
    texts = [asked(processor, *sample) for sample in samples]
    images = {"images": [images for images, _ in samples]} if any(i for i, _ in samples) else {}
    options = {"padding": True, "return_tensors": "pt", "return_mm_token_type_ids": True}
    batch = processor(text=texts, **images, **options)
    known = inspect.signature(model.forward).parameters
    batch = {name: value for name, value in batch.items() if name in known}
    hidden = (batch["attention_mask"] == 0) | (batch["input_ids"] == image_token_id(model.config))
    return batch | {"labels": batch["input_ids"].masked_fill(hidden, -100)}


def texts(processor: Any, given: list[str], side: str = "right") -> Any:
    return processor.tokenizer(given, padding=True, padding_side=side, return_tensors="pt")


def ids(rows: int, columns: int, mask: int = 1) -> dict[str, torch.Tensor]:
    found = torch.randint(3, 90, (rows, columns))
    return {"input_ids": found, "attention_mask": torch.full_like(found, mask)}


def views(adapter: AlignmentAdapter, model: Any, batch: dict, *given: Any) -> list[torch.Tensor]:
    """What the adapter hands to the alignment: image, answer and extended nodes."""
    seen: list[Any] = []
    handle = adapter.align.register_forward_pre_hook(lambda _, found: seen.extend(found))
    with adapter.watch(model):
        model(**batch)
    adapter(*given, generator=0)
    handle.remove()
    return seen


def counted(model: Any) -> list[int]:
    """Grows with each run of the vision tower."""
    runs: list[int] = []
    model.get_encoder(modality="image").register_forward_hook(lambda *_: runs.append(1))
    return runs


def test_nodes_of_a_batch_are_those_of_each_sample_alone(family: str) -> None:
    """Texts are padded on either side. PaliGemma's see their padding in transformers 5.17, where
    its decoder reads in both directions; only its image nodes are looked at."""
    model, processor = make(family)
    adapter = AlignmentAdapter(model)
    answers, extended = texts(processor, ANSWERS), texts(processor, EXTENDED, "left")
    batch = conversations(model, processor, SAMPLES)
    compared = 1 if family == "paligemma" else 3
    with torch.no_grad():
        together = views(adapter, model, batch, answers, extended)
        for row, number in enumerate(SHOWN):
            lone = conversations(model, processor, [SAMPLES[number]])
            own = (texts(processor, [ANSWERS[number]]), texts(processor, [EXTENDED[number]]))
            alone = views(adapter, model, lone, *own)
            for view, expected in list(zip(together, alone, strict=True))[:compared]:
                # Measured at most 3e-7 of the largest, by another order of additions.
                assert len(view) == len(SHOWN)
                assert torch.allclose(view[row], expected[0], atol=3e-6 * float(view.abs().max()))
    image = together[0]
    distances = torch.cdist(image, image) + torch.eye(len(SHOWN))
    assert float(distances.min()) > 1e-3, "every image has a node of its own"


def test_a_step_of_training_reaches_every_part(family: str) -> None:
    model, processor = make(family)
    adapter, runs = AlignmentAdapter(model.train()), counted(model)
    batch = conversations(model, processor, SAMPLES)
    with adapter.watch(model):
        lm_loss = model(**batch).loss
    aligned = adapter(texts(processor, ANSWERS), texts(processor, EXTENDED), generator=0)
    assert len(runs) == 1, "the main pass has the features; nobody computes them again"
    assert aligned.num_nodes == len(SHOWN)
    aligned.loss.backward(retain_graph=True)
    decoder = {id(weight) for weight in model.get_decoder().parameters()}
    tower = {id(weight) for weight in model.get_encoder(modality="image").parameters()} - decoder
    largest = {"decoder": 0.0, "tower": 0.0, "connector": 0.0}
    for name, weight in model.named_parameters():
        inside = "tower" if id(weight) in tower and "merger" not in name else "connector"
        part = "decoder" if id(weight) in decoder else inside
        if weight.grad is not None:
            assert torch.isfinite(weight.grad).all(), name
            largest[part] = max(largest[part], float(weight.grad.abs().max()))
    assert all(largest.values()), largest
    lm_loss.backward()
    assert not [name for name in adapter.state_dict() if not name.startswith("align.")]


def test_a_batch_of_texts_alone_has_no_graph(family: str) -> None:
    if family == "paligemma":
        pytest.skip("its processor takes no text without an image")
    model, processor = make(family)
    adapter = AlignmentAdapter(model)
    with adapter.watch(model):
        lm_loss = model(**conversations(model, processor, SAMPLES[3:4])).loss
    aligned = adapter(texts(processor, ["Yes."]), texts(processor, ["Yes, it is."]))
    assert (aligned.num_nodes, aligned.loss.item()) == (0, 0.0)
    (lm_loss + aligned.loss).backward()
    assert all(weight.grad is not None for weight in adapter.parameters())


@pytest.fixture
def llava() -> tuple[Any, dict[str, torch.Tensor]]:
    """A model in training and a batch of it."""
    model, processor = make("llava")
    return model.train(), conversations(model, processor, SAMPLES)


def test_without_extended_answers(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model, views="image-answer")
    losses = []
    for extended in (None, "anything"):
        with adapter.watch(model):
            model(**batch)
        torch.manual_seed(0)
        losses.append(adapter(ids(5, 3), extended, generator=0).loss)
    assert torch.equal(*losses)


def num_hooks(model: nn.Module) -> int:
    parts = list(model.modules())
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)


def test_what_was_watched_serves_one_call(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model)
    texts = ids(5, 3), ids(5, 4)
    model(**batch)  # transformers sets hooks of its own in the first pass
    before = num_hooks(model)
    for _ in range(2):
        with pytest.raises(MatchingError, match=r"no pass of the model: run it inside `with adap"):
            adapter(*texts)
        with adapter.watch(model):
            model(**batch)
        assert adapter(*texts).num_nodes == 4
    with adapter.watch(model):
        model(**batch)
    with adapter.watch(model):
        pass
    with pytest.raises(MatchingError, match="no pass of the model"):
        adapter(*texts)
    assert num_hooks(model) == before, "nothing is watched any more"


def test_an_evaluation_in_between_is_not_the_pass(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model)
    other = {name: value[:2] for name, value in batch.items()}
    other["pixel_values"] = batch["pixel_values"][:2]
    with adapter.watch(model):
        loss = model(**batch).loss
        with torch.no_grad():
            model(**other)
    aligned = adapter(ids(5, 3), ids(5, 4))
    assert aligned.num_nodes == 4
    (loss + aligned.loss).backward()
    with torch.no_grad(), adapter.watch(model):
        model(**other)
    assert adapter(ids(2, 3), ids(2, 4)).num_nodes == 2, "an evaluation with graphs of its own"


def test_micro_batches_give_the_gradients_of_their_sum(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model, dropout=0.0)
    connector = model.model.multi_modal_projector.linear_1.weight
    answer, extended = ids(5, 3), ids(5, 4)

    def loss() -> torch.Tensor:
        with adapter.watch(model):
            lm_loss = model(**batch).loss
        return lm_loss + adapter(answer, extended, generator=0).loss

    (loss() + loss()).backward()
    together, connector.grad = connector.grad, None
    for _ in range(2):
        loss().backward()
    assert torch.allclose(connector.grad, together, atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_change_nothing(llava, reentrant: bool) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model, dropout=0.0)
    connector = model.model.multi_modal_projector.linear_1.weight
    answer, extended, found = ids(5, 3), ids(5, 4), []
    for checkpointed in (False, True):
        if checkpointed:
            options = {"use_reentrant": reentrant}
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        with adapter.watch(model):
            lm_loss = model(**batch).loss
            aligned = adapter(answer, extended, generator=0).loss
            (lm_loss + aligned).backward()
        found.append(connector.grad)
        connector.grad = None
    assert torch.allclose(*found, atol=1e-6)


def test_below_peft_and_in_half_precision(llava) -> None:
    peft = pytest.importorskip("peft")
    model, batch = llava
    config = peft.LoraConfig(target_modules=r".*language_model.*\.q_proj", r=2)
    wrapped = peft.get_peft_model(model.bfloat16(), config)
    adapter, runs = AlignmentAdapter(wrapped), counted(model)
    with adapter.watch(wrapped):
        wrapped(**batch | {"pixel_values": batch["pixel_values"].bfloat16()})
    adapter(ids(5, 3), ids(5, 4)).loss.backward()
    assert len(runs) == 1
    factors = [weight for name, weight in wrapped.named_parameters() if "lora_B" in name]
    assert all(weight.grad.abs().max() > 0 for weight in factors)


class Wrapper(nn.Module):
    """What DistributedDataParallel looks like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given, **batch):
        return self.module(*given, **batch)


def test_around_a_wrapper(llava) -> None:
    model, batch = llava
    wrapped = Wrapper(model)
    adapter = AlignmentAdapter(wrapped)
    for watched in (wrapped, model):
        with adapter.watch(watched):
            wrapped(batch["input_ids"], **{k: v for k, v in batch.items() if k != "input_ids"})
        assert adapter(ids(5, 3), ids(5, 4)).num_nodes == 4


def test_texts_that_do_not_fit_are_named(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model)
    good = ids(5, 3)
    short = r"not a batch of input_ids and attention_mask \[S, T\]"
    for texts, words in (
        ((ids(4, 3), good), rf"`answer` has input_ids \(4, 3\) .*, {short} with the S = 5 samples"),
        ((good, ids(6, 3)), r"`extended` has input_ids \(6, 3\)"),
        (({"input_ids": good["input_ids"]}, good), "and attention_mask missing, not"),
        (({}, good), "`answer` has input_ids missing and attention_mask missing"),
        ((good | {"attention_mask": torch.ones(5, 4)}, good), r"\(5, 3\) and .* \(5, 4\)"),
        (({"input_ids": [[3]] * 5, "attention_mask": [[1]] * 5}, good), "input_ids missing"),
        ((good["input_ids"], good), f"`answer` is Tensor, {short}"),
        ((good,), f"`extended` is NoneType, {short}.* Only views='image-answer' does without"),
        ((good, ids(5, 3, mask=0)), "A text of `extended` has no token"),
    ):
        with adapter.watch(model):
            model(**batch)
        with pytest.raises(MatchingError, match=words):
            adapter(*texts)


def test_a_sample_without_an_image_needs_no_token(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model)
    answer = ids(5, 3)
    answer["attention_mask"][3] = 0
    found = views(adapter, model, batch, answer, ids(5, 4))
    assert torch.isfinite(found[1]).all()


def test_vectors_without_ids_are_refused(llava) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model)
    vectors = model.get_input_embeddings()(batch["input_ids"])
    with (
        adapter.watch(model),
        pytest.raises(MatchingError, match="one vector for each of the `input_ids`"),
    ):
        model(inputs_embeds=vectors)
    with pytest.raises(MatchingError, match="no pass of the model"):
        adapter(ids(5, 3), ids(5, 3))


class Expanding(nn.Module):
    """Makes several vectors of one placeholder itself, as models did before their processors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_decoder(self) -> Any:
        return self.model.get_decoder()

    def forward(self, input_ids: torch.Tensor) -> Any:
        vectors = self.model.get_input_embeddings()(input_ids)
        return self.get_decoder()(inputs_embeds=vectors.repeat(1, 2, 1))


def test_more_vectors_than_ids_are_refused(llava) -> None:
    model = Expanding(llava[0])
    with (
        AlignmentAdapter(model).watch(model),
        pytest.raises(MatchingError, match="Expanding did not give its language model one vector"),
    ):
        model(llava[1]["input_ids"])


def test_models_without_image_vectors_among_the_text_are_refused() -> None:
    from transformers import GitConfig, MllamaConfig, MllamaForConditionalGeneration

    with pytest.raises(MatchingError, match=r"GitConfig names no image token .*cross-attention"):
        image_token_id(GitConfig())
    with pytest.raises(MatchingError, match="Linear has no `get_decoder`"):
        AlignmentAdapter(nn.Linear(2, 2))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    text = sizes | {"vocab_size": 99, "num_attention_heads": 2, "num_key_value_heads": 2}
    text |= {"cross_attention_layers": [1], "pad_token_id": 0}
    vision = sizes | {"attention_heads": 2, "num_global_layers": 1, "image_size": 28}
    vision |= {"patch_size": 14, "vision_output_dim": 32, "intermediate_layers_indices": [0]}
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=98)
    model = MllamaForConditionalGeneration(config)
    with (
        AlignmentAdapter(model).watch(model),
        pytest.raises(MatchingError, match=r"^MllamaFor.* did not give .*cross-attention"),
    ):
        model(input_ids=torch.tensor([[98, 5, 6]]))


def test_a_language_model_that_gives_its_logits_alone_is_refused(llava, monkeypatch) -> None:
    model, batch = llava
    adapter = AlignmentAdapter(model)
    with adapter.watch(model):
        model(**batch)
    monkeypatch.setattr(model, "get_decoder", lambda: lambda **_: SimpleNamespace(logits=None))
    with pytest.raises(MatchingError, match="gives no hidden states without its head"):
        adapter(ids(5, 3), ids(5, 3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("neighbors", "neighbors: unknown key. Did you mean `neighbours`?"),
        ("num_neighbours", "Did you mean `neighbours`?"),
        ("k", "Did you mean `neighbours`?"),
        ("solvers", "Did you mean `solver`?"),
        ("Objective", "Did you mean `objective`?"),
        ("pooling", "Known here: objective, views, graph, neighbours"),
    ],
)
def test_settings_that_are_misspelt_are_named(llava, wrong: str, words: str) -> None:
    with pytest.raises(MatchingError) as caught:
        AlignmentAdapter(llava[0], **{wrong: 5})
    assert words in str(caught.value)


def test_settings_are_those_of_the_alignment(llava) -> None:
    adapter = AlignmentAdapter(llava[0], neighbours=3, solver="local-search", objective="pairwise")
    own = adapter.align.settings
    assert (own.neighbours, own.solver, own.objective) == (3, "local-search", "pairwise")


def test_a_mean_is_that_of_its_own_places() -> None:
    vectors = torch.randn(2, 4, 8)
    vectors[0, 3] = float("nan")
    places = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1]])
    found = mean_over(vectors, places)
    assert torch.allclose(found[0], (vectors[0, 0] + vectors[0, 2]) / 2)
    assert torch.allclose(found[1], vectors[1].mean(0), atol=1e-6)
    assert mean_over(vectors.bfloat16(), places).dtype == torch.float32
