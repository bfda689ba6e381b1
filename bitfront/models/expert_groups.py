"""Which experts of a block share a format: none, clusters of those that are alike, or all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfront.experts import Grouping, place
from bitfront.models.experts import SeparateExperts, active_share, expert_modules
from bitfront.space import Layer

Floats = NDArray[np.float64]
_ROUNDS = 100


def with_experts(
    model: nn.Module, layers: tuple[Layer, ...], grouping: Grouping
) -> tuple[Layer, ...]:
    """The layers, those of separate experts in the groups asked for and with their active share.

    Args:
        model: holds the layers.
        layers: of the model, each in its group.
        grouping: of the experts.
    """
    modules = expert_modules(model)
    labels: dict[str, list[int]] = {}
    if grouping.kind == "cluster":
        labels = {
            name: clusters(features(model, name), grouping.n_clusters).tolist() for name in modules
        }
    made = []
    for layer in layers:
        at = place(layer.name)
        if at is None or at[0] not in modules:
            made.append(layer)
            continue
        module, index = at
        group = {
            "expert": f"{module}.{index}",
            "cluster": f"{module}.cluster{labels[module][index] if labels else 0}",
            "block": module,
        }.get(grouping.kind, layer.name)
        active = active_share(model, len(modules[module]))
        made.append(replace(layer, group=group, active=active))
    return tuple(made)


def features(model: nn.Module, module: str) -> Floats:
    """What tells experts of a block apart without any text, `[n_experts, n_features]`.

    Logarithms of the Frobenius norm of each matrix and of the norm of the expert's row in the
    router. The squared error of a format grows with the squared norm of the matrix, so experts
    alike in these suffer alike; and a row's norm goes with how decidedly the expert is chosen.

    Args:
        model: holds the experts.
        module: name of their module.
    """
    experts = model.get_submodule(module)
    assert isinstance(experts, SeparateExperts)
    norms = [
        [float(p.detach().double().norm()) for p in expert.parameters() if p.dim() == 2]
        for expert in experts
    ]
    columns = [*np.array(norms).T]
    around = model.get_submodule(module.rpartition(".")[0])
    inside = {id(p) for p in experts.parameters()}
    for parameter in around.parameters():
        is_router = parameter.dim() == 2 and len(parameter) == len(experts)
        if is_router and id(parameter) not in inside:
            rows = torch.linalg.vector_norm(parameter.detach().double(), dim=1)
            columns.append(rows.cpu().numpy())
            break
    logs: Floats = np.log(np.maximum(np.stack(columns, axis=1), 1e-30))
    return logs


def clusters(points: Floats, n_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    """Number of the cluster of each point, by Lloyd's k-means on standardized columns.

    First centres by k-means++ (Arthur and Vassilvitskii 2007). Clusters are numbered in the order
    of their first points.

    Args:
        points: `[n_points, n_features]`.
        n_clusters: at most so many; fewer where there are fewer points.
        seed: of the first centres.

    >>> clusters(np.array([[0.0], [5.0], [0.1], [5.2]]), 2)
    array([0, 1, 0, 1])
    """
    rng = np.random.default_rng(seed)
    spread = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    centres = scaled[rng.integers(len(scaled))][None]
    while len(centres) < min(n_clusters, len(scaled)):
        distances = _squares(scaled, centres).min(axis=1)
        total = distances.sum()
        if total <= 0:
            break
        centres = np.vstack([centres, scaled[rng.choice(len(scaled), p=distances / total)]])
    labels = _squares(scaled, centres).argmin(axis=1)
    for _ in range(_ROUNDS):
        centres = np.stack(
            [
                scaled[labels == index].mean(axis=0) if (labels == index).any() else centre
                for index, centre in enumerate(centres)
            ]
        )
        moved = _squares(scaled, centres).argmin(axis=1)
        if (moved == labels).all():
            break
        labels = moved
    order = {label: index for index, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[label] for label in labels.tolist()])


def _squares(points: Floats, centres: Floats) -> Floats:
    """Squared distances `[n_points, n_centres]`."""
    found: Floats = np.square(points[:, None] - centres[None]).sum(axis=-1)
    return found
