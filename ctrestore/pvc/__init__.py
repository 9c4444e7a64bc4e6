"""Partial volume correction without a network or an MRI: pure functions on numpy arrays ``(x, y, z)``."""

from ctrestore.pvc.richardson_lucy import richardson_lucy
from ctrestore.pvc.sharpen import FITTED_SHARPENING, LECTURES_SHARPENING, sharpen
from ctrestore.pvc.van_cittert import reblurred_van_cittert
from ctrestore.pvc.yang import yang

__all__ = ["FITTED_SHARPENING", "LECTURES_SHARPENING", "reblurred_van_cittert", "richardson_lucy", "sharpen", "yang"]
