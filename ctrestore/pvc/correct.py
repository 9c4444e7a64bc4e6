"""Every published correction by its name in PETPVC."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, blur
from ctrestore.pvc.gtm import gtm
from ctrestore.pvc.iterative_yang import iterative_yang
from ctrestore.pvc.labbe import labbe
from ctrestore.pvc.meltzer import meltzer
from ctrestore.pvc.mtc import mtc
from ctrestore.pvc.muller_gartner import (
    Convention,
    brain_map,
    eroded_white_value,
    grey_regions,
    modified_muller_gartner,
    muller_gartner,
    tissues,
)
from ctrestore.pvc.rbv import rbv
from ctrestore.pvc.regions import Layer, Regions, dot
from ctrestore.pvc.richardson_lucy import richardson_lucy
from ctrestore.pvc.stc import stc
from ctrestore.pvc.validation import checked_fwhm, checked_image
from ctrestore.pvc.van_cittert import reblurred_van_cittert
from ctrestore.pvc.within_regions import richardson_lucy_within, van_cittert_within

#: What each method does, by the name that PETPVC gives it; MELTZER and mMG are ours.
METHODS: dict[str, str] = {
    "GTM": "region means by the geometric transfer matrix",
    "LABBE": "region means by least squares",
    "RBV": "region-based voxel-wise correction, means of the GTM",
    "RBV+VC": "RBV, then Van Cittert within the regions",
    "RBV+RL": "RBV, then Richardson-Lucy within the regions",
    "LABBE+RBV": "region-based voxel-wise correction, means of LABBE",
    "LABBE+RBV+VC": "LABBE+RBV, then Van Cittert within the regions",
    "LABBE+RBV+RL": "LABBE+RBV, then Richardson-Lucy within the regions",
    "MTC": "multi-target correction, means of the GTM",
    "MTC+VC": "MTC, then Van Cittert within the regions",
    "MTC+RL": "MTC, then Richardson-Lucy within the regions",
    "LABBE+MTC": "multi-target correction, means of LABBE",
    "LABBE+MTC+VC": "LABBE+MTC, then Van Cittert within the regions",
    "LABBE+MTC+RL": "LABBE+MTC, then Richardson-Lucy within the regions",
    "IY": "iterative Yang",
    "IY+VC": "IY, then Van Cittert within the regions",
    "IY+RL": "IY, then Richardson-Lucy within the regions",
    "MG": "Müller-Gärtner, white matter's value from deep white matter",
    "MG+VC": "MG, then Van Cittert within grey matter",
    "MG+RL": "MG, then Richardson-Lucy within grey matter",
    "mMG": "Müller-Gärtner, values of white matter and CSF from the GTM",
    "MELTZER": "brain against the rest",
    "STC": "single-target correction",
    "RL": "Richardson-Lucy deconvolution, without regions",
    "VC": "reblurred Van Cittert deconvolution, without regions",
}
WITHOUT_REGIONS = ("RL", "VC")
TABLES = ("GTM", "LABBE")  # their result is the means alone


@dataclass(frozen=True)
class Correction:
    """What a correction gives.

    Attributes:
        image: corrected ``(x, y, z)``, float32; of GTM and LABBE, None.
        means: true means by region, float64: those of GTM or LABBE where the method starts from them, else the means
            over the corrected image; None without regions.
        white_value: of white matter, where Müller-Gärtner used one.
    """

    image: Any | None
    means: np.ndarray | None
    white_value: float | None = None


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
        regions: on the image's grid; RL and VC need none. For MG, mMG and MELTZER see :func:`tissues`.
        method: a key of :data:`METHODS`.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.
        n_iterations: of IY and STC.
        n_deconvolutions: of Van Cittert and Richardson-Lucy.
        alpha: step of Van Cittert.
        stop: relative change at which Van Cittert ends.
        convention: of MG and mMG, see :func:`ctrestore.pvc.muller_gartner`.
        white_value: of MG, instead of the mean over deep white matter.

    Raises:
        ValueError: there is no such method, it needs regions, or as the method's own function says.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}. There are: {', '.join(METHODS)}.")
    psf: dict[str, Any] = {"fwhm_mm": fwhm_mm, "spacing_mm": spacing_mm, "kernel": kernel}
    if method == "RL":
        return Correction(richardson_lucy(image, **psf, n_iterations=n_deconvolutions), None)
    if method == "VC":
        vc = reblurred_van_cittert(image, **psf, alpha=alpha, n_iterations=n_deconvolutions, stop=stop)
        return Correction(vc, None)
    if regions is None:
        raise ValueError(f"method {method} needs regions: masks or a label map. Without: {', '.join(WITHOUT_REGIONS)}.")
    first, *others = method.split("+")
    if first in TABLES:
        means = (gtm if first == "GTM" else labbe)(image, regions, **psf)
        if not others:
            return Correction(None, means)
        first, *others = others
    else:
        means = None
    white = None
    within = regions
    if first in ("RBV", "MTC"):
        means = gtm(image, regions, **psf) if means is None else means
        corrected = (rbv if first == "RBV" else mtc)(image, regions, **psf, means=means)
    elif first in ("IY", "STC"):
        corrected = (iterative_yang if first == "IY" else stc)(image, regions, **psf, n_iterations=n_iterations)
    elif first == "MELTZER":
        corrected = meltzer(image, brain_map(regions), **psf)
    elif first == "mMG":
        means = gtm(image, regions, **psf)
        corrected = modified_muller_gartner(image, regions, **psf, convention=convention, means=means)
        white = float(means[grey_regions(regions)[-1] + 1])
    else:
        grey, white_matter, _ = tissues(regions)
        within = Regions([Layer(weights=grey)], ["grey-matter"])
        white = white_value
        if white is None:
            white = eroded_white_value(checked_image(image), white_matter, spacing_mm=spacing_mm)
        corrected = muller_gartner(image, grey, white_matter, **psf, white_value=white, convention=convention)
    for deconvolution in others:
        if deconvolution == "VC":
            corrected = van_cittert_within(
                corrected, within, **psf, alpha=alpha, n_iterations=n_deconvolutions, stop=stop
            )
        else:
            corrected = richardson_lucy_within(corrected, within, **psf, n_iterations=n_deconvolutions)
    return Correction(corrected, regions.means(corrected) if means is None else means, white)


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
