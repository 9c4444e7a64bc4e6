"""Embedded data: brain PET phantoms with known truth."""

from ctrestore.phantoms.anatomy import FAMILIES, Anatomy, Family, build_anatomy, describe
from ctrestore.phantoms.cohort import SPLITS, Split, Subject, cohort, data_list, files_of, render, sidecar_of
from ctrestore.phantoms.scan import Grid, acquire, resample_to_grid
from ctrestore.phantoms.uptake import COLD, HOT, TRACERS, Tracer, Uptake, draw_uptake
from ctrestore.phantoms.writing import is_written, phantom_entries, write_cohort, write_subject

__all__ = [
    "COLD",
    "FAMILIES",
    "HOT",
    "SPLITS",
    "TRACERS",
    "Anatomy",
    "Family",
    "Grid",
    "Split",
    "Subject",
    "Tracer",
    "Uptake",
    "acquire",
    "build_anatomy",
    "cohort",
    "data_list",
    "describe",
    "draw_uptake",
    "files_of",
    "is_written",
    "phantom_entries",
    "render",
    "resample_to_grid",
    "sidecar_of",
    "write_cohort",
    "write_subject",
]
