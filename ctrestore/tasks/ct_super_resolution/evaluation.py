"""Weights, learning rates and evaluation of CT super-resolution, as its configs call them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ctrestore.errors import InputError
from ctrestore.tasks.ct_restoration.restored_slice import restored_slice
from ctrestore.tasks.ct_slices import _with_weights
from ctrestore.training.inferers import MixedPrecisionInferer


def layer_rates(network: nn.Module, learning_rate: float, last_layer_factor: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: all layers at ``learning_rate``, the last one at a fraction of it.

    SRCNN and FSRCNN are trained with a factor of 0.1 (Dong et al.): the layer that makes the image reaches its level
    early and then follows every batch.
    """
    layers = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
    last = list(layers[-1].parameters(recurse=False))
    slower = {id(parameter) for parameter in last}
    others = [parameter for parameter in network.parameters() if id(parameter) not in slower]
    return [{"params": others, "lr": learning_rate}, {"params": last, "lr": last_layer_factor * learning_rate}]


def weights_at(
    scale: int, bundle_root: str, name: str = "model", ckpt_dir: str | None = None, must_exist: bool = True
) -> str:
    """The weights of a super-resolution network for a scale: of one's own training, or else the released ones.

    Released are ``models/NAME.pt`` for scale 2 and ``models/NAME_xSCALE.pt`` for others, of the default network
    ``models/xSCALE.pt``.

    Args:
        scale: how many times finer.
        bundle_root: of the bundle.
        name: of the network's overlay; ``model``: the default network.
        ckpt_dir: of one's own training.
        must_exist: whether a file that is not there is an error.

    Raises:
        InputError: there are no weights for this scale.
    """
    own = None if ckpt_dir is None else Path(str(ckpt_dir)) / "model.pt"
    if own is not None and own.is_file():
        return str(own)
    other = f"x{scale}" if name == "model" else f"{name}_x{scale}"
    path = Path(str(bundle_root)) / "models" / f"{name if scale == 2 else other}.pt"
    if must_exist and not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.pt"))) or "none"
        raise InputError(
            f"there are no weights for scale {scale}: no {path} (there: {there}; model.pt is for scale 2). Remedy: "
            f"another scale, a training of your own with --scale {scale}, or --weights FILE of one."
        )
    return str(path)


def evaluate_super_resolution(
    dataset: Any, rows: Sequence[dict[str, Any]], output_dir: str, clip_hu: Sequence[float], **choices: Any
) -> None:
    """Bring test slices to a finer grid with networks and by interpolation; write tables and pictures of how good.

    Args:
        dataset: samples with ``image`` (coarse) and ``label`` in HU; see
            :func:`ctrestore.tasks.ct_super_resolution.report.evaluate_ct_super_resolution`.
        rows: of the table, ``{"name", "network", "weights", "amp"}`` each. The first must have its weights; others
            without are left out, which the table says.
        output_dir: made if need be.
        clip_hu: lowest and highest HU that the networks see.
        choices: of :func:`ctrestore.tasks.ct_super_resolution.report.evaluate_ct_super_resolution`.

    Raises:
        InputError: the weights are missing or belong to another network, there is no slice, or a result is NaN.
    """
    from ctrestore.tasks.ct_super_resolution.report import evaluate_ct_super_resolution

    found, remarks = _with_weights(rows)
    networks = {
        row["name"]: partial(
            restored_slice,
            network=row["network"].eval(),
            inferer=MixedPrecisionInferer(row["amp"]),
            clip_hu=clip_hu,
        )
        for row in found
    }
    evaluate_ct_super_resolution(dataset, networks, output_dir, remarks=remarks, **choices)
