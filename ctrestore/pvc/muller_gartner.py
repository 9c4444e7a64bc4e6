"""Müller-Gärtner correction (MG): grey-matter activity, freed from white matter and CSF."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ctrestore.psf import Kernel, Scalars, blur, namespace, per_axis, reach_voxels
from ctrestore.pvc.corrected import Correction
from ctrestore.pvc.gtm import gtm
from ctrestore.pvc.ratio import ratio
from ctrestore.pvc.regions import BACKGROUND, Regions, as_mask, bounds, grown
from ctrestore.pvc.validation import checked_image, checked_psf

Convention = Literal["concentration", "fraction"]
GREY_VOXEL = 0.5  # a voxel that is grey matter for the most part
PURE_WHITE = 0.9
# PETPVC sets to zero what is negative or above ten times the white matter's value.
LARGEST_OVER_WHITE = 10.0
EMPTY_MASK = 1e-6


def muller_gartner(
    image: Any,
    grey: Any,
    white: Any,
    csf: Any | None = None,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    white_value: float | None = None,
    csf_value: float = 0.0,
    convention: Convention = "concentration",
    kernel: Kernel = "exact",
) -> Any:
    """Grey-matter activity: [f - W h(white) - C h(csf)] / h(grey), zero outside grey matter. ``(x, y, z)``, float32.

    Args:
        image: PET ``(x, y, z)``, any unit.
        grey: fraction of grey matter, 0..1, same shape; likewise ``white`` and ``csf``.
        white: see ``grey``.
        csf: see ``grey``; without it CSF is taken to have no activity.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        white_value: true activity W of white matter. None: the mean deep in it (:func:`eroded_white_value`). The GTM's
            value (then the method is called mMG) is the better one: deep white matter is small at 6 mm, and not pure.
        csf_value: true activity C of CSF, best from the GTM too; eroding CSF to find it overestimates it badly.
        convention: ``concentration``: activity per volume of grey matter, in voxels of which it fills more than half
            (as in PETPVE12). ``fraction``: that times the voxel's grey-matter fraction, values outside 0..10 W set to 0
            (as in PETPVC). They differ by 12 % in the mean over the cortex.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing or zero, the grids differ, there is no deep white
            matter, or a value is not finite.

    Reference:
        Müller-Gärtner et al., J Cereb Blood Flow Metab 12:571, 1992.
    """
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    grey, white = as_mask(grey, "grey", like=image), as_mask(white, "white", like=image)
    w = eroded_white_value(image, white, spacing_mm=spacing_mm) if white_value is None else float(white_value)
    if not (math.isfinite(w) and math.isfinite(csf_value)):
        raise ValueError(f"the values of white matter and CSF must be finite; got {w} and {csf_value}.")
    others = white * w
    if csf is not None and csf_value:
        others = others + as_mask(csf, "csf", like=image) * float(csf_value)
    return _grey_activity(image, others, grey, convention, psf, largest=LARGEST_OVER_WHITE * w)


def _grey_activity(
    image: Any, others: Any, grey: Any, convention: Convention, psf: dict[str, Any], *, largest: float | None
) -> Any:
    """What the others' activity, blurred, leaves of the image, by the blurred share of grey matter."""
    if convention not in ("concentration", "fraction"):
        raise ValueError(f"convention is 'concentration' or 'fraction'; got {convention!r}.")
    corrected = namespace(image).zeros_like(image)
    box = grown(bounds(grey > 0), reach_voxels(**psf), tuple(image.shape))  # elsewhere the result is zero
    rest = image[box] - blur(others[box], **psf)
    value = ratio(rest, blur(grey[box], **psf), floor=EMPTY_MASK, otherwise=0.0)
    if convention == "concentration":
        value *= grey[box] > GREY_VOXEL
    else:
        value *= grey[box]
        if largest is not None:
            value *= (value >= 0) & (value <= largest)
    corrected[box] = value
    return corrected


def modified_muller_gartner(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    convention: Convention = "concentration",
    means: np.ndarray | None = None,
) -> Any:
    """Müller-Gärtner with the GTM's values (mMG): [f - h(sum of T_i m_i outside grey matter)] / h(grey).

    White matter, CSF and every other region that is not grey matter are taken away with their true means, the
    background too. ``(x, y, z)``, float32; zero outside grey matter.

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: with tissue maps, see :func:`tissues`.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        convention: as in :func:`muller_gartner`.
        means: of the regions; by default those of the GTM.

    Raises:
        ValueError: as :func:`ctrestore.pvc.gtm` does, or the regions have no tissue maps.

    Reference:
        Rousset et al., J Nucl Med 39:904, 1998; Gonzalez-Escamilla et al. (PETPVE12), NeuroImage 147:669, 2017.
    """
    image, psf = checked_image(image), checked_psf(fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    grey, _, _ = tissues(regions)
    means = gtm(image, regions, **psf) if means is None else np.asarray(means, dtype=float)
    others = np.where(np.isin(np.arange(len(regions)), grey_regions(regions)), 0.0, means)
    return _grey_activity(image, regions.paint(others), grey, convention, psf, largest=None)


def with_deep_white(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    convention: Convention = "concentration",
    white_value: float | None = None,
) -> Correction:
    """Müller-Gärtner from regions with tissue maps: :func:`muller_gartner`, and white matter's value that it used."""
    grey, white, _ = tissues(regions)
    if white_value is None:
        white_value = eroded_white_value(checked_image(image), white, spacing_mm=spacing_mm)
    psf: dict[str, Any] = {"fwhm_mm": fwhm_mm, "spacing_mm": spacing_mm, "kernel": kernel}
    corrected = muller_gartner(image, grey, white, **psf, white_value=white_value, convention=convention)
    return Correction(corrected, None, white_value)


def with_means(
    image: Any,
    regions: Regions,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    means: np.ndarray,
    kernel: Kernel = "exact",
    convention: Convention = "concentration",
) -> Correction:
    """Müller-Gärtner with means by region: :func:`modified_muller_gartner`, and white matter's value that it used."""
    psf: dict[str, Any] = {"fwhm_mm": fwhm_mm, "spacing_mm": spacing_mm, "kernel": kernel}
    corrected = modified_muller_gartner(image, regions, **psf, convention=convention, means=means)
    return Correction(corrected, means, float(means[grey_regions(regions)[-1] + 1]))


def grey_regions(regions: Regions) -> list[int]:
    """Which regions are grey matter: the parcels, or the first mask."""
    first = regions.layers[0]
    return [0] if first.labels is None else list(range(len(regions) - len(regions.layers) + 1))


def brain_map(regions: Regions) -> Any:
    """Fraction of brain ``(x, y, z)``: grey and white matter, see :func:`tissues`, or the only mask there is.

    Raises:
        ValueError: the regions are a label map.
    """
    first, *others = regions.layers
    if first.weights is not None and all(regions.names[layer.region] == BACKGROUND for layer in others):
        return first.weights
    grey, white, _ = tissues(regions)
    return grey + white


def tissues(regions: Regions) -> tuple[Any, Any, Any | None]:
    """Maps of grey matter, white matter and, where there is one, CSF: each ``(x, y, z)``.

    Of :meth:`Regions.from_parcels` they are those it was given; of :meth:`Regions.from_masks` the first two or three
    masks, in PETPVC's order.

    Raises:
        ValueError: the regions are a label map, or a single mask.
    """
    first = regions.layers[0]
    maps = [layer.weights for layer in regions.layers if regions.names[layer.region] != BACKGROUND or layer is first]
    if first.weights is None or len(maps) < 2:
        raise ValueError(
            "this method needs tissue maps: masks of grey matter, white matter and, if there is one, CSF, in this "
            "order. Usual cause: a label map. Remedy: give the probability maps of the segmentation."
        )
    return maps[0], maps[1], maps[2] if len(maps) > 2 else None


def eroded_white_value(image: Any, white: Any, *, spacing_mm: Scalars) -> float:
    """Mean of the image deep in white matter: at least a ball's radius away from any voxel of less than 90 % white.

    The radius is PETPVC's: 6 voxels of up to 1 mm, 3 voxels of 2.5 mm or more, and in between by a straight line.

    Raises:
        ValueError: no voxel is that deep.
    """
    from scipy.ndimage import binary_erosion, minimum_filter

    mean_mm = float(np.mean(per_axis(spacing_mm, name="spacing_mm")))
    radius = 6 if mean_mm <= 1.0 else 3 if mean_mm >= 2.5 else math.floor(8.5 - 2 * mean_mm)
    pure = white > PURE_WHITE
    box = bounds(pure)
    inside = pure[box] if namespace(white) is np else pure[box].cpu().numpy()
    ball = np.sum(np.square(np.indices((2 * radius + 1,) * 3) - radius), axis=0) <= (radius + 0.5) ** 2  # ITK's ball
    # Only where a cube fits that the ball holds: four times as fast as asking every voxel for its distance.
    side = 2 * int((radius + 0.5) / math.sqrt(3)) + 1
    core = minimum_filter(inside, size=side, mode="constant", cval=0)
    deep = binary_erosion(inside, structure=ball, mask=core) & core
    if not deep.any():
        raise ValueError(
            f"no white matter lies {radius} voxels deep, so its activity cannot be read off the image. Usual cause: a "
            "soft or thin white-matter map. Remedy: give its value (white_value, --white-value), or take it from the "
            "GTM (method mMG)."
        )
    values = image[box] if namespace(image) is np else image[box].cpu().numpy()
    return float(values[deep].mean(dtype=np.float64))
