"""What correction with an MRI is worth: classical methods with a scan's tissue maps, exact and imperfect ones.

Two kinds of result. RBV and IY give the activity of the whole head, like the network, and are measured like it. GTM
(one number a region) and mMG (an image of grey matter) give the *concentration in grey matter*; they are measured
against its truth, in the parcels and masks that their user has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from ctrestore.metrics import lesion_recovery, nrmse, regional_means
from ctrestore.phantoms import COLD, HOT
from ctrestore.psf import blur
from ctrestore.pvc import Regions, fit_parcels, gtm, iterative_yang, modified_muller_gartner, rbv
from ctrestore.tasks.pet_pvc.evaluated_scans import Scan

logger = logging.getLogger("ctrestore")

SHIFT_MM = 1.0  # a good coregistration of PET and MRI is about so far off
SMOOTHING_FWHM_MM = 2.0  # an MRI of 1 mm voxels and the neighbourhood prior of a segmentation
FWHM_ERROR_MM = 1.0
EXACT, IMPERFECT = "exact masks", "imperfect masks"
FOOTNOTE = (
    f"Imperfect masks: {SHIFT_MM:g} mm off, smoothed by {SMOOTHING_FWHM_MM:g} mm, FWHM {FWHM_ERROR_MM:g} mm too large. "
    "GTM and mMG give the concentration in grey matter and are measured against its truth."
)


@dataclass(frozen=True)
class TissueMaps:
    """Fractions of grey and white matter and CSF, and parcels, ``(x, y, z)``; None where there is no such map."""

    grey: np.ndarray
    white: np.ndarray
    csf: np.ndarray | None
    parcels: np.ndarray | None

    @classmethod
    def of(cls, scan: Scan) -> TissueMaps | None:
        """The maps of a scan; None without grey or white matter."""
        grey, white, csf, parcels = map(scan.read_if_given, ("grey_matter", "white_matter", "csf", "parcels"))
        if grey is None or white is None:
            return None
        csf = csf if csf is not None and csf.any() else None  # an empty map would be a region without a voxel
        return cls(grey, white, csf, None if parcels is None else np.rint(parcels).astype(np.int32))

    @property
    def tissues(self) -> dict[str, np.ndarray]:
        """The fractions by name."""
        named = {"grey": self.grey, "white": self.white, "csf": self.csf}
        return {name: volume for name, volume in named.items() if volume is not None}

    def regions(self, *, fwhm_mm: tuple[float, ...], spacing_mm: tuple[float, ...]) -> Regions:
        """The regions of the GTM, parcels being called by their number."""
        if self.parcels is None:
            return Regions.from_masks(np.stack(list(self.tissues.values())), names=list(self.tissues))
        parcels = fit_parcels(self.parcels, self.grey, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm)
        names = {int(label): str(label) for label in np.unique(parcels) if label}
        return Regions.from_parcels(parcels, **self.tissues, names=names)

    def moved(self, shift_mm: float, affine: np.ndarray) -> TissueMaps:
        """The maps as a wrong coregistration leaves them: as far along the patient's x, y and z alike.

        Fractions are interpolated linearly, parcels by the nearest voxel.
        """
        offset = np.linalg.solve(affine[:3, :3], np.full(3, shift_mm / np.sqrt(3)))
        moved = {name: _shifted(volume, offset, order=1) for name, volume in self.tissues.items()}
        parcels = None if self.parcels is None else _shifted(self.parcels, offset, order=0)
        return replace(self, **moved, parcels=parcels)

    def smoothed(self, fwhm_mm: float, spacing_mm: tuple[float, ...]) -> TissueMaps:
        """The fractions as a segmentation of limited resolution gives them; they still add up to what they did."""
        return replace(
            self, **{name: blur(v, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm) for name, v in self.tissues.items()}
        )


def _shifted(volume: np.ndarray, offset_voxels: np.ndarray, *, order: int) -> np.ndarray:
    return ndimage.shift(volume, offset_voxels, order=order, mode="nearest", prefilter=False)


def imperfect(maps: TissueMaps, scan: Scan) -> TissueMaps:
    """The maps shifted and smoothed; see :data:`FOOTNOTE`."""
    return maps.moved(SHIFT_MM, scan.grid.affine).smoothed(SMOOTHING_FWHM_MM, scan.spacing_mm)


class Corrected(NamedTuple):
    """What the classical methods make of one PET with one set of maps.

    Attributes:
        gtm: concentration in grey matter by parcel (1 for all of it without parcels).
        images: activity ``(x, y, z)`` by method.
        mmg: concentration in grey matter ``(x, y, z)`` where its fraction exceeds one half.
    """

    gtm: dict[int, float]
    images: dict[str, np.ndarray]
    mmg: np.ndarray


def correct_with(
    image: np.ndarray,
    maps: TissueMaps,
    *,
    fwhm_mm: tuple[float, ...],
    spacing_mm: tuple[float, ...],
    iterate: bool = True,
) -> Corrected:
    """GTM, RBV, mMG and, if ``iterate``, IY of one PET ``(x, y, z)``; all share the GTM's region means."""
    psf: dict[str, Any] = {"fwhm_mm": fwhm_mm, "spacing_mm": spacing_mm}
    regions = maps.regions(**psf)
    means = gtm(image, regions, **psf)
    by_name = dict(zip(regions.names, means.tolist()))
    images = {"RBV": rbv(image, regions, **psf, means=means)}
    if iterate:
        images["IY"] = iterative_yang(image, regions, **psf)
    mmg = modified_muller_gartner(image, regions, **psf, means=means)
    by_parcel = {int(name): mean for name, mean in by_name.items() if name.isdecimal()} or {1: by_name["grey"]}
    return Corrected(by_parcel, images, mmg)


def classical_rows(
    scan: Scan, image: np.ndarray, maps: TissueMaps
) -> Iterator[tuple[str, np.ndarray | dict[str, float]]]:
    """The rows of a scan: an image to be measured like the network's, or the metrics of what is no such image."""
    concentration = scan.read_if_given("grey_matter_concentration")
    wrong_fwhm = tuple(width + FWHM_ERROR_MM for width in scan.fwhm_mm)
    for which, of_user, fwhm_mm in ((EXACT, maps, scan.fwhm_mm), (IMPERFECT, imperfect(maps, scan), wrong_fwhm)):
        try:
            corrected = correct_with(image, of_user, fwhm_mm=fwhm_mm, spacing_mm=scan.spacing_mm)
        except ValueError as error:  # maps that no GTM can use are no reason to keep the network's result from the user
            logger.warning("%s: no rows with %s: %s", scan.name, which, error)
            continue
        if concentration is not None:
            lesions = scan.read_if_given("lesions")
            yield f"GTM, {which}", gtm_scores(corrected.gtm, concentration, maps)
            yield f"mMG, {which}", mmg_scores(corrected.mmg, of_user, concentration, maps, lesions)
        for method, volume in corrected.images.items():
            yield f"{method}, {which}", volume


def gtm_scores(means: Mapping[int, float], concentration: np.ndarray, truth: TissueMaps) -> dict[str, float]:
    """Regional bias of the GTM's means against the true concentration ``(x, y, z)``."""
    return _bias(means, concentration, truth)


def mmg_scores(
    mmg: np.ndarray, of_user: TissueMaps, concentration: np.ndarray, truth: TissueMaps, lesions: np.ndarray | None
) -> dict[str, float]:
    """Error, regional bias and lesion recovery of an image of the concentration in grey matter.

    Regional means are taken where a user would: in the grey matter and the parcels of the user's own maps.
    """
    inside = of_user.grey > 0.5
    labels, means = regional_means(mmg, _parcels(of_user, inside))
    scores = _bias(dict(zip(labels.tolist(), means.tolist())), concentration, truth)
    both = inside & (truth.grey > 0.5)
    scores["gm_nrmse"] = nrmse(mmg, concentration, both)
    if lesions is not None:
        scores["hot_recovery"] = lesion_recovery(
            mmg, concentration, np.where(both, lesions, 0), hot_labels=range(HOT, COLD)
        )
    return scores


def _bias(means: Mapping[int, float], concentration: np.ndarray, truth: TissueMaps) -> dict[str, float]:
    """Mean and largest absolute bias, relative, over the parcels that both have; NaN without parcels."""
    labels, true_means = regional_means(concentration, _parcels(truth, truth.grey > 0), weight=truth.grey)
    bias = [means[label] / mean - 1 for label, mean in zip(labels.tolist(), true_means.tolist()) if label in means]
    if truth.parcels is None or not bias:
        return {"gm_bias_mean": float("nan"), "gm_bias_max": float("nan")}
    return {"gm_bias_mean": float(np.mean(np.abs(bias))), "gm_bias_max": float(np.max(np.abs(bias)))}


def _parcels(maps: TissueMaps, inside: np.ndarray) -> np.ndarray:
    """The parcels within a mask; one parcel where there are none."""
    return np.where(inside, 1 if maps.parcels is None else maps.parcels, 0)
