"""Embedded data: chest and abdominal CT phantoms in HU, with labels."""

from ctrestore.phantoms.ct.phantom import KINDS, CTPhantom, Finding, Kind, abdomen, chest
from ctrestore.phantoms.ct.torso import Tissue

__all__ = ["KINDS", "CTPhantom", "Finding", "Kind", "Tissue", "abdomen", "chest"]
