"""Every published correction by its name in PETPVC."""

from __future__ import annotations

import importlib
import math
from typing import Any

from ctrestore.psf import Kernel, Scalars, blur
from ctrestore.pvc.corrected import Correction
from ctrestore.pvc.muller_gartner import Convention, tissues
from ctrestore.pvc.regions import Layer, Regions, dot
from ctrestore.pvc.validation import checked_fwhm, checked_image
from ctrestore.pvc_methods import CHAINS, METHODS, WITHOUT_REGIONS, Method


def correct(
    image: Any,
    regions: Regions | None,
    method: str,
    *,
    fwhm_mm: Scalars | None,
    spacing_mm: Scalars,
    kernel: Kernel = "exact",
    n_iterations: int = 10,
    n_deconvolutions: int = 10,
    alpha: float = 1.5,
    stop: float = 0.01,
    convention: Convention = "concentration",
    white_value: float | None = None,
) -> Correction:
    """The image corrected by the method of this name.

    Args:
        image: PET ``(x, y, z)``, any unit; a numpy array or a tensor.
        regions: on the image's grid; None for methods without, such as RL. For tissue maps see :func:`tissues`.
        method: a key of :data:`ctrestore.pvc.METHODS`; see :mod:`ctrestore.pvc_methods`.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        n_iterations: of methods that iterate, such as IY and STC.
        n_deconvolutions: of deconvolutions, such as Van Cittert and Richardson-Lucy.
        alpha: step of Van Cittert.
        stop: relative change at which Van Cittert ends.
        convention: of MG and mMG, see :func:`ctrestore.pvc.muller_gartner`.
        white_value: of MG, instead of the mean over deep white matter.

    Raises:
        ValueError: there is no such method, it needs regions, or as the method's own function says.
    """
    if method not in CHAINS:
        raise ValueError(f"there is no method {method!r}. There are: {', '.join(METHODS)}.")
    chain = CHAINS[method]
    row = chain.row
    psf: dict[str, Any] = {"fwhm_mm": fwhm_mm, "spacing_mm": spacing_mm, "kernel": kernel}
    options = {
        "n_iterations": n_iterations,
        "n_deconvolutions": n_deconvolutions,
        "alpha": alpha,
        "stop": stop,
        "convention": convention,
        "white_value": white_value,
    }
    if row.masks == "none":
        return Correction(_called(row.function, image, **psf, **_chosen(row, options)), None)
    if regions is None:
        raise ValueError(f"method {method} needs regions: masks or a label map. Without: {', '.join(WITHOUT_REGIONS)}.")
    if row.gives == "means":
        return Correction(None, _called(row.function, image, regions, **psf, **_chosen(row, options)))
    keywords = _chosen(row, options)
    if chain.means is not None:
        keywords["means"] = _called(chain.means.function, image, regions, **psf, **_chosen(chain.means, options))
    result = _called(row.function, image, regions, **psf, **keywords)
    if not isinstance(result, Correction):
        result = Correction(result, keywords.get("means"))
    corrected = result.image
    if chain.then is not None:
        within = regions
        if row.gives == "grey matter":
            within = Regions([Layer(weights=tissues(regions)[0])], ["grey-matter"])
        corrected = _called(chain.then.within, corrected, within, **psf, **_chosen(chain.then, options))
    means = regions.means(corrected) if result.means is None else result.means
    return Correction(corrected, means, result.white_value)


def _called(function: str, *arguments: Any, **keywords: Any) -> Any:
    """A function of this folder, ``file.function``, called."""
    file, name = function.split(".")
    return getattr(importlib.import_module(f"ctrestore.pvc.{file}"), name)(*arguments, **keywords)


def _chosen(row: Method, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a row as its function's keywords."""
    return {"n_iterations" if name == "n_deconvolutions" else name: options[name] for name in row.options}


def residual(
    image: Any, corrected: Any, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel = "exact"
) -> float:
    """How much of the image the corrected one, blurred, leaves unexplained: || f - h(c) || / || f ||.

    A figure to flag a failed correction, not to rank methods: the truth itself leaves the noise.

    Args:
        image: PET ``(x, y, z)``.
        corrected: of a whole-image method, same shape.
        fwhm_mm: as in :func:`correct`.
        spacing_mm: as in :func:`correct`.
        kernel: as in :func:`correct`.
    """
    image, corrected = checked_image(image), checked_image(corrected)
    rest = image - blur(corrected, fwhm_mm=checked_fwhm(fwhm_mm), spacing_mm=spacing_mm, kernel=kernel)
    return math.sqrt(dot(rest, rest) / max(dot(image, image), 1e-30))
