"""What a restoration changed in a scan, counted slice by slice and said in one line."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ctrestore.metrics.local_noise import local_noise_hu
from ctrestore.metrics.median import median_5x5
from ctrestore.metrics.tissue_bands import tissue_band_errors


class Changes:
    """Noise in soft tissue before and after, and how far the mean of each tissue moved."""

    def __init__(self) -> None:
        self.noise: list[tuple[float, ...]] = []
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def count(self, before: np.ndarray, after: np.ndarray, padding: np.ndarray) -> None:
        """Take a slice into account, all of shape ``(x, y)``; in padding nothing was measured."""
        before, after = (np.where(padding, -1000.0, image) for image in (before, after))
        # Bands cut out of a noisy image take in pixels for their noise, and the restored one keeps some of it.
        tissue = median_5x5(after)
        self.noise.append(local_noise_hu(before, after, tissue=after))
        for name, error in tissue_band_errors(after, before, tissue=tissue, mask=~padding).items():
            if error.n_pixels:
                self.sums[name] += error.bias_hu * error.n_pixels
                self.counts[name] += error.n_pixels

    @property
    def noise_hu(self) -> tuple[float, float]:
        """Before and after: the median of the slices that have soft tissue; NaN where none has."""
        known = np.array([pair for pair in self.noise if np.isfinite(pair).all()])
        before, after = np.median(known, axis=0) if len(known) else (np.nan, np.nan)
        return float(before), float(after)

    @property
    def shift_hu(self) -> dict[str, float]:
        """Mean change in HU of the tissues that are there."""
        return {name: self.sums[name] / self.counts[name] for name in self.counts}

    def __str__(self) -> str:
        before, after = self.noise_hu
        noise = f"noise in soft tissue {before:.1f} -> {after:.1f} HU" if np.isfinite(before) else "no soft tissue"
        shifts = ", ".join(f"{name} {shift:+.1f}" for name, shift in self.shift_hu.items())
        return f"{noise}; mean shift in HU: {shifts}"
