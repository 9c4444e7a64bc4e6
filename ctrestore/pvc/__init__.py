"""Partial volume correction by published methods: pure functions of numpy arrays or torch tensors ``(x, y, z)``."""

from ctrestore.pvc.correct import correct, residual
from ctrestore.pvc.corrected import Correction
from ctrestore.pvc.gtm import gtm, transfer_matrix
from ctrestore.pvc.iterative_yang import iterative_yang
from ctrestore.pvc.labbe import labbe
from ctrestore.pvc.meltzer import meltzer
from ctrestore.pvc.mtc import mtc
from ctrestore.pvc.muller_gartner import eroded_white_value, modified_muller_gartner, muller_gartner, tissues
from ctrestore.pvc.parcels import fit_parcels
from ctrestore.pvc.rbv import rbv
from ctrestore.pvc.regions import Regions
from ctrestore.pvc.richardson_lucy import richardson_lucy
from ctrestore.pvc.sharpen import FITTED_SHARPENING, LECTURES_SHARPENING, sharpen
from ctrestore.pvc.stc import stc
from ctrestore.pvc.van_cittert import reblurred_van_cittert
from ctrestore.pvc.within_regions import richardson_lucy_within, van_cittert_within
from ctrestore.pvc.yang import yang
from ctrestore.pvc_methods import METHODS, TABLES, WITHOUT_REGIONS

__all__ = [
    "FITTED_SHARPENING",
    "LECTURES_SHARPENING",
    "METHODS",
    "TABLES",
    "WITHOUT_REGIONS",
    "Correction",
    "Regions",
    "correct",
    "eroded_white_value",
    "fit_parcels",
    "gtm",
    "iterative_yang",
    "labbe",
    "meltzer",
    "modified_muller_gartner",
    "mtc",
    "muller_gartner",
    "rbv",
    "reblurred_van_cittert",
    "residual",
    "richardson_lucy",
    "richardson_lucy_within",
    "sharpen",
    "stc",
    "tissues",
    "transfer_matrix",
    "van_cittert_within",
    "yang",
]
