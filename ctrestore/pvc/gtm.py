"""Geometric transfer matrix (GTM): the true mean of every region from their blurred means."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctrestore.psf import Kernel, Scalars, blur, in_threads, reach_voxels
from ctrestore.pvc.regions import EXACT_SUM, Regions, grown
from ctrestore.pvc.validation import checked_fwhm, checked_image

# Errors of the image grow by up to this factor in the means. Whole-brain parcellations at 6 mm have 3 to 30.
LARGEST_CONDITION = 1000.0


def gtm(
    image: Any, regions: Regions, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel = "exact"
) -> np.ndarray:
    """Mean activity of every region, corrected for spill-over among them: ``(region,)``, float64.

    With w_ij = <m_i, h(m_j)> / N_i, the share of region j's activity seen in region i, the blurred means t solve
    w T = t. Exact where activity is uniform in each region, the regions share out the volume and h is the PSF.

    Args:
        image: PET ``(x, y, z)``, any unit.
        regions: on the image's grid.
        fwhm_mm: the PSF's full width at half maximum, one number or one along each axis.
        spacing_mm: voxel size, one number or one along each axis.
        kernel: ``exact``, or ``itk`` for PETPVC's truncated Gaussian.

    Raises:
        ValueError: a voxel is NaN or infinite, the FWHM is missing or zero, the grids differ, or the matrix is near
            singular: a region too small for the PSF, or two regions that cannot be told apart.

    Reference:
        Rousset, Ma and Evans, J Nucl Med 39:904, 1998.
    """
    seen = regions.sums(checked_image(image)) / regions.totals()
    matrix = transfer_matrix(regions, fwhm_mm=fwhm_mm, spacing_mm=spacing_mm, kernel=kernel)
    return solve(matrix, seen, regions, fwhm_mm=fwhm_mm)


def solve(matrix: np.ndarray, seen: np.ndarray, regions: Regions, *, fwhm_mm: Scalars | None) -> np.ndarray:
    """True means from blurred ones.

    Raises:
        ValueError: the matrix is near singular; names the regions to blame.
    """
    _, singular_values, directions = np.linalg.svd(matrix)
    condition = singular_values[0] / max(singular_values[-1], np.finfo(float).tiny)
    if not condition < LARGEST_CONDITION:
        # The combination of regions that leaves (nearly) no trace in the image.
        hidden = np.abs(directions[-1])
        blamed = [regions.names[i] for i in np.argsort(-hidden) if hidden[i] > 0.3 * hidden.max()]
        raise ValueError(
            f"the transfer matrix is near singular (condition number {condition:.3g}): with a PSF of {fwhm_mm} mm the "
            f"activity of {', '.join(blamed[:5])} leaves next to no trace of its own in the image. Usual cause: a "
            "region of a few voxels, a mask used twice, or a FWHM given in voxels or much too large. Remedy: join the "
            "region with a neighbour, or check the FWHM."
        )
    return np.linalg.solve(matrix, seen)


def transfer_matrix(
    regions: Regions, *, fwhm_mm: Scalars | None, spacing_mm: Scalars, kernel: Kernel = "exact", reblurred: bool = False
) -> np.ndarray:
    """The matrix w_ij = <m_i, h(m_j)> / N_i: ``(region, region)``, float64; kept by the regions for the next call.

    Each mask is blurred once, in its own bounding box, and one pass over that box adds up its share in all regions. The
    region with the largest box is never blurred: where the masks add up to one, so do the rows.

    Args:
        regions: the regions.
        fwhm_mm: as in :func:`gtm`.
        spacing_mm: as in :func:`gtm`.
        kernel: as in :func:`gtm`.
        reblurred: <h(m_i), h(m_j)> in place of <m_i, h(m_j)>, and the sum of h(m_i) in place of N_i.
    """
    fwhm = checked_fwhm(fwhm_mm)
    key = (fwhm, np.broadcast_to(np.asarray(spacing_mm, dtype=float), 3).tobytes(), kernel, reblurred)
    if key not in regions.matrices:
        regions.matrices[key] = _transfer_matrix(regions, fwhm, spacing_mm, kernel, reblurred)
    return regions.matrices[key].copy()


def _transfer_matrix(
    regions: Regions, fwhm_mm: Scalars, spacing_mm: Scalars, kernel: Kernel, reblurred: bool
) -> np.ndarray:
    psf: dict[str, Any] = {"fwhm_mm": fwhm_mm, "spacing_mm": spacing_mm, "kernel": kernel}
    reach = [(1 + reblurred) * r for r in reach_voxels(**psf)]
    boxes = [grown(box, reach, regions.shape) for box in regions.boxes()]
    sizes = [np.prod([s.stop - s.start for s in box]) for box in boxes]
    totals = seen_totals(regions, **psf) if reblurred else regions.totals()
    matrix = np.empty((len(regions), len(regions)))
    last = regions.outermost if regions.partition_error() < EXACT_SUM else None

    def fill(region: int) -> None:
        spread = blur(regions.mask(region, boxes[region]), **psf)
        spread = blur(spread, **psf, adjoint=True) if reblurred else spread
        matrix[:, region] = regions.overlaps(spread, boxes[region])

    in_threads(fill, [region for region in np.argsort(sizes)[::-1] if region != last])  # the longest job first
    if last is not None:
        matrix[:, last] = totals - np.delete(matrix, last, axis=1).sum(axis=1)
    return matrix / totals[:, None]


def seen_totals(regions: Regions, **psf: Any) -> np.ndarray:
    """Sum of every blurred mask, h(m_i): ``(region,)``. That of ITK's kernel differs from N_i at the volume's faces."""
    if psf["kernel"] == "exact":
        return regions.totals()
    ones = regions.xp.ones_like(regions.mask(0))
    return regions.sums(blur(ones, **psf, adjoint=True))
