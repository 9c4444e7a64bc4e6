"""A PET, frame by frame: read, corrected in place, and what there is to say about each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ctrestore.commands.pvc.masks import on
from ctrestore.errors import InputError
from ctrestore.psf import Kernel
from ctrestore.pvc import Regions, correct, residual
from ctrestore.pvc.muller_gartner import Convention
from ctrestore.pvc_methods import CHAINS, Chain


@dataclass(frozen=True)
class Settings:
    """What a correction needs besides the image and its regions; FWHM and spacing along the array's axes."""

    method: str
    fwhm_mm: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    kernel: Kernel
    n_iterations: int
    n_deconvolutions: int
    alpha: float
    stop: float
    convention: Convention
    white_value: float | None
    device: str | None

    @property
    def chain(self) -> Chain:
        """What the table says of the method."""
        return CHAINS[self.method]

    @property
    def of_a_part(self) -> bool:
        """Whether the result is zero outside grey matter or the brain, so that it cannot explain the PET."""
        return self.chain.row.gives in ("grey matter", "brain")


@dataclass(frozen=True)
class Frame:
    """The numbers of one corrected frame; means a region, None where the method or the masks give none."""

    means_before: np.ndarray | None
    means_after: np.ndarray | None
    white_value: float | None
    residual: float | None


def correct_frames(pet: Path, voxels: np.ndarray, regions: Regions | None, settings: Settings) -> list[Frame]:
    """Correct every frame of ``(x, y, z)`` or ``(x, y, z, frame)`` voxels in place.

    Where a method gives means alone, they are painted into their regions.

    Raises:
        InputError: a frame cannot be corrected; file and frame are named.
    """
    frames = voxels[..., None] if voxels.ndim == 3 else voxels
    if not voxels.any():
        raise InputError(f"{pet}: every voxel is zero. Usual cause: an empty export, or a scale factor of zero.")
    results = []
    for number in tqdm(range(frames.shape[3]), desc=settings.method, unit="frame", delay=2, leave=False, disable=None):
        try:
            frames[..., number], result = _corrected(frames[..., number], regions, settings)
        except (ValueError, RuntimeError) as error:  # torch raises RuntimeError when its memory is full
            which = f"{pet}, frame {number + 1} of {frames.shape[3]}" if frames.shape[3] > 1 else str(pet)
            raise InputError(f"{which}: {error}") from error
        results.append(result)
    return results


def _corrected(image: np.ndarray, regions: Regions | None, settings: Settings) -> tuple[np.ndarray, Frame]:
    """One frame's corrected voxels and numbers."""
    if not image.any():  # before the tracer comes
        none = None if regions is None else np.zeros(len(regions))
        return image, Frame(means_before=none, means_after=none, white_value=None, residual=None)
    psf: dict[str, Any] = {
        "fwhm_mm": settings.fwhm_mm,
        "spacing_mm": settings.spacing_mm,
        "kernel": settings.kernel,
    }
    volume = on(settings.device, image)
    correction = correct(
        volume,
        regions,
        settings.method,
        **psf,
        n_iterations=settings.n_iterations,
        n_deconvolutions=settings.n_deconvolutions,
        alpha=settings.alpha,
        stop=settings.stop,
        convention=settings.convention,
        white_value=settings.white_value,
    )
    means = correction.means
    corrected: Any = correction.image
    if regions is not None:
        if corrected is None and means is not None:
            corrected = regions.paint(means)
        elif means is None:
            means = regions.means(corrected)
    frame = Frame(
        means_before=None if regions is None else np.asarray(regions.means(volume), dtype=float),
        means_after=None if means is None else np.asarray(means, dtype=float),
        white_value=correction.white_value,
        residual=float(residual(volume, corrected, **psf)) if not settings.of_a_part else None,
    )
    array = np.asarray(corrected if settings.device is None else corrected.cpu())
    if not np.isfinite(array).all() or not array.any():
        what = "zero everywhere" if np.isfinite(array).all() else "not finite"
        raise InputError(f"the result of {settings.method} is {what}. Usual cause: masks of another scan than the PET.")
    return array, frame
