"""What embeddings look like while they are being aligned; cheap enough for every step.

Matching accuracy alone can mislead: graph layers can learn to match what the embeddings do not
show, and they are thrown away after training. These numbers look at the bare embeddings.

Shapes: three views [B, D]; row b of all is the same sample.
"""

from itertools import combinations

import torch

from exgra_med.alignment.controls import cosines

NAMES = ("image", "answer", "extended")
BINS = 20


def view_diagnostics(
    image: torch.Tensor, answer: torch.Tensor, extended: torch.Tensor | None
) -> dict[str, float]:
    """Similarity and retrieval for each pair of views, as flat names and numbers.

    `image`, `answer` and `extended` are [B, D] of any float dtype, row b the same sample. Without
    extended answers there is one pair, `image_answer`.

    Returns, for each pair such as `image_answer`:
        `/cosine_own`, `/cosine_other`: mean cosine of the same and of different samples;
        `/gap`: distance between the means of the normalised views (the modality gap, Liang et al.
        2022);
        `/recall_1`, `/recall_5`: share of samples whose partner is among the 1 or 5 most similar,
        mean over both directions.
    """
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for (one, first), (two, second) in _pairs(image, answer, extended):
            similarity = cosines(first, second)
            size = similarity.shape[0]
            own = similarity.diagonal()
            other = (similarity.sum() - own.sum()) / max(1, size * (size - 1))
            units = [torch.nn.functional.normalize(view, dim=1) for view in (first, second)]
            found[f"{one}_{two}/cosine_own"] = own.mean()
            found[f"{one}_{two}/cosine_other"] = other
            found[f"{one}_{two}/gap"] = (units[0].mean(0) - units[1].mean(0)).norm()
            for depth in (1, 5):
                found[f"{one}_{two}/recall_{depth}"] = _recall(similarity, depth)
        values = torch.stack(list(found.values())).tolist()
    return dict(zip(found, values, strict=True))


def cosine_histograms(
    image: torch.Tensor, answer: torch.Tensor, extended: torch.Tensor | None
) -> dict[str, dict[str, list[int]]]:
    """Counts of cosines, `own` and `other`, in 20 equal bins from -1 to 1, for each pair."""
    histograms = {}
    with torch.no_grad():
        for (one, first), (two, second) in _pairs(image, answer, extended):
            similarity = cosines(first, second).clamp(-1, 1).cpu()
            own = torch.eye(similarity.shape[0], dtype=torch.bool)
            histograms[f"{one}_{two}"] = {
                name: torch.histc(similarity[where], BINS, -1, 1).long().tolist()
                for name, where in (("own", own), ("other", ~own))
            }
    return histograms


def _pairs(*views: torch.Tensor | None):
    present = [
        (name, view.detach().float())
        for name, view in zip(NAMES, views, strict=True)
        if view is not None
    ]
    return combinations(present, 2)


def _recall(similarity: torch.Tensor, depth: int) -> torch.Tensor:
    depth = min(depth, similarity.shape[0])
    own = torch.arange(similarity.shape[0], device=similarity.device)[:, None]
    both = [
        (matrix.topk(depth, dim=1).indices == own).any(1).float().mean()
        for matrix in (similarity, similarity.T)
    ]
    return torch.stack(both).mean()
