"""The adapter on tiny random models of seven families, built from their configurations."""

from types import SimpleNamespace

import pytest
import torch
from tiny_families import FAMILIES, conversation, idefics3, internvl, llava, texts

from exgra_med.alignment import MatchingError
from exgra_med.alignment.adapter import AlignmentAdapter, AttentionPooling, image_nodes, mean_pool


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
    tiled = SimpleNamespace(pooler_output=torch.arange(4.0).view(4, 1, 1))
    assert image_nodes(tiled, [1, 1], [2, 2])[:, 0].tolist() == [0.5, 2.5]
    assert image_nodes(tiled, [0, 1])[:, 0].tolist() == [1.5], "one image has them all"
    with pytest.raises(MatchingError, match="do not belong"):
        image_nodes(ragged, [1, 1])
    with pytest.raises(MatchingError, match="No sample"):
        image_nodes(ragged, [0, 0])


@pytest.mark.parametrize(
    ("shape", "sizes"), [((6, 2, 3), [1, 5]), ((12, 3), [2, 10]), ((11, 3), [2, 9])], ids=str
)
def test_images_of_different_size_are_told_apart_or_refused(shape, sizes) -> None:
    features = torch.ones(shape)
    features[: sizes[0]] = 0.0
    assert image_nodes(features, [1, 1], sizes)[:, 0].tolist() == [0.0, 1.0]
    with pytest.raises(MatchingError, match="say with `rows_per_image`"):
        image_nodes(features, [1, 1])
    for wrong in ([1, 1], [sum(sizes)], [0, sum(sizes)]):
        with pytest.raises(MatchingError, match="does not divide"):
            image_nodes(features, [1, 1], wrong)


@pytest.mark.parametrize(
    "counts", [[1, 0], [2, 0, 1], [1, 0, 1], [3, 3], [0, 2], [0, 1, 0]], ids=str
)
def test_features_of_whole_samples_are_those_of_their_images(counts) -> None:
    """Idefics 3 has one entry a sample, empty where there is only text."""
    own = [torch.randn(count * 4, 3) for count in counts]
    expected = [rows.mean(0) for rows in own if len(rows)]
    assert torch.allclose(image_nodes(own, counts), torch.stack(expected), atol=1e-6)
    sizes = [4] * sum(counts)
    assert torch.allclose(image_nodes(own, counts, sizes), torch.stack(expected), atol=1e-6)


def test_an_image_without_features_is_refused() -> None:
    rows = [torch.ones(4, 3), torch.ones(0, 3), torch.ones(4, 3)]
    for counts in ([1, 1, 1], [0, 1, 1], [2, 1, 0]):
        with pytest.raises(MatchingError, match="do not belong"):
            image_nodes(rows, counts)


@pytest.mark.parametrize("features", [{"last_hidden_state": 1}, None, ["a"]], ids=str)
def test_what_is_no_image_feature_is_refused(features) -> None:
    with pytest.raises(MatchingError, match="neither a tensor nor a list"):
        image_nodes(SimpleNamespace(pooler_output=features), [1])


def test_idefics_with_several_images_and_with_none() -> None:
    model, vision = idefics3()
    adapter = AlignmentAdapter(model)
    pixels = vision(12)["pixel_values"].view(4, 3, 3, 56, 56).clone()
    counts = [2, 0, 1, 3]
    for sample, count in zip(pixels, counts, strict=True):
        sample[count:] = 0.0  # how its processor pads
    mixed = adapter(model, {"pixel_values": pixels}, counts, texts(4, 3), texts(4, 5), generator=0)
    assert mixed.num_nodes == 3 and torch.isfinite(mixed.loss)


def test_tiles_of_a_real_model_are_divided_as_they_were_cut() -> None:
    model, vision = internvl()
    adapter = AlignmentAdapter(model.eval(), dropout=0.0)
    pixels, tiles = vision(8), [1, 3, 1, 3]
    features = model.get_image_features(**pixels).pooler_output
    expected = torch.stack([own.flatten(0, 1).mean(0) for own in features.split(tiles)])
    assert torch.allclose(image_nodes(features, [1, 1, 1, 1], tiles), expected, atol=1e-6)
    short, long = texts(4, 3), texts(4, 5)
    with pytest.raises(MatchingError, match="do not belong to 4 images"):
        adapter(model, pixels, [1, 1, 1, 1], short, long)
    given = adapter(model, pixels, [1, 1, 1, 1], short, long, rows_per_image=tiles, generator=0)
    assert given.num_nodes == 4


def test_a_model_without_image_features_is_refused_in_words() -> None:
    with pytest.raises(MatchingError, match="Linear has no get_image_features"):
        AlignmentAdapter(torch.nn.Linear(2, 2))


def test_without_extended_answers() -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model.eval(), views="image-answer")
    pixels, answer = vision(4), texts(4, 3)
    two = adapter(model, pixels, [1] * 4, answer, None, generator=0)
    ignored = adapter(model, pixels, [1] * 4, answer, "anything", generator=0)
    assert two.num_nodes == 4 and torch.equal(two.loss, ignored.loss)
    with pytest.raises(MatchingError, match="`extended` is missing; only views='image-answer'"):
        AlignmentAdapter(model)(model, pixels, [1] * 4, answer)


def test_what_does_not_fit_together_is_named() -> None:
    model, vision = llava()
    adapter = AlignmentAdapter(model)
    pixels, good = vision(6), texts(6, 3)
    for answer, counts, words in (
        (texts(5, 3), [1] * 6, r"`answer` .*\(5, 3\) .* S = 6 samples of `images_per_sample`"),
        (good, [1] * 5, r"`answer` .*\(6, 3\) .* S = 5 samples"),
        ({"input_ids": good["input_ids"]}, [1] * 6, "`answer` has no attention_mask"),
        (good["input_ids"], [1] * 6, "`answer` is a Tensor, not a batch of input_ids and"),
        (good | {"attention_mask": torch.ones(6, 4)}, [1] * 6, r"\(6, 3\) and \(6, 4\)"),
    ):
        with pytest.raises(MatchingError, match=words):
            adapter(model, pixels, counts, answer, good)
    with pytest.raises(MatchingError, match="`extended` has no input_ids and no attention_mask"):
        adapter(model, pixels, [1] * 6, good, {})
    assert adapter(model, pixels, torch.ones(6, dtype=torch.long), good, good).num_nodes == 6


def test_a_pooling_that_there_is_not_is_refused_at_once() -> None:
    with pytest.raises(MatchingError, match="'mean'; there are tokens, padded, attention"):
        AlignmentAdapter(llava()[0], pooling="mean")


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
    with pytest.raises(MatchingError, match="no token"):
        attention(hidden, mask * torch.tensor([[1], [0]]))
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
