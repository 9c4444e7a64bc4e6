"""Embedded data: brain PET phantoms with known truth."""

from ctrestore.phantoms.anatomy import FAMILIES, Anatomy, build_anatomy, describe
from ctrestore.phantoms.cohort import Subject, cohort, data_list, files_of, render, write_cohort, write_subject
from ctrestore.phantoms.scan import Grid, acquire, resample_to_grid
from ctrestore.phantoms.uptake import COLD, HOT, TRACERS, Tracer, Uptake, draw_uptake

__all__ = [
    "COLD",
    "FAMILIES",
    "HOT",
    "TRACERS",
    "Anatomy",
    "Grid",
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
    "render",
    "resample_to_grid",
    "write_cohort",
    "write_subject",
]
