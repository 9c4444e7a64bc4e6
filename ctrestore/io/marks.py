"""What this package writes of itself into the files it makes, and how it knows them again.

A NIfTI has one line for it (``descrip``, 79 letters). A DICOM object says that it is derived (``ImageType``), how
(``DerivationDescription``), and which software contributed (``ContributingEquipmentSequence``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydicom takes a second to import, and a NIfTI needs none
    from pydicom.dataset import Dataset

from ctrestore import __version__

SOFTWARE = "ctrestore"
NIFTI_LETTERS = 79
SIMULATE_DOSE = f"{SOFTWARE} simulate-dose"  # the model of a scan that was made worse, not restored
CORRECTED_PET = f"partial volume corrected by {SOFTWARE}"
TISSUE_FRACTIONS = f"tissue fractions seen in the PET by {SOFTWARE}"


@dataclass(frozen=True)
class Contribution:
    """What a model did to a scan.

    Args:
        description: what was done, for example ``denoised``.
        model: name of the bundle or command.
        version: of the model.
        weights_sha256: of its weights; None: it has none.
    """

    description: str
    model: str
    version: str
    weights_sha256: str | None = None

    @property
    def in_nifti(self) -> str:
        """The line of a NIfTI; of the weights' checksum what suffices to tell them apart."""
        weights = f", weights {self.weights_sha256[:12]}" if self.weights_sha256 else ""
        return f"{self.description} by {SOFTWARE} {self.model} {self.version}{weights}"

    @property
    def in_dicom(self) -> str:
        """The text of a derived DICOM object, of at most 1024 letters that every character set has."""
        weights = f", weights sha256 {self.weights_sha256}" if self.weights_sha256 else ""
        text = f"{self.description}: {self.model} {self.version}{weights}; {SOFTWARE} {__version__}"
        return dicom_text(f"{text}; for research use only"[:1024])


def corrected_by(method: str) -> str:
    """The line of a PET corrected by a classical method of partial volume correction."""
    return f"{method} by {SOFTWARE} {__version__}"


def simulated_dose(dose_fraction: float) -> str:
    """The line of a NIfTI with the noise of a fraction of its dose."""
    return f"{SIMULATE_DOSE}, dose {dose_fraction:g}"


def simulated_dose_series(dose_fraction: float) -> Contribution:
    """What makes a DICOM series one of a fraction of its dose."""
    return Contribution(f"simulated at {dose_fraction:g} of the dose", SIMULATE_DOSE, __version__)


def phantom(what: str) -> str:
    """The line of a phantom, for example of a ``chest phantom, seed 3``."""
    return f"{SOFTWARE} {what}"


def degraded_phantom(how: str) -> str:
    """The line of a phantom that was made worse, for example to ``a quarter of the dose``."""
    return phantom(f"phantom at {how}")


def converted(origin: str) -> str:
    """The line of a copy as NIfTI, for example of an ``mha``."""
    return f"from {origin}"


def pet_in(unit: str) -> str:
    """The line of a PET series as NIfTI."""
    return f"PET in {unit}"


def mark_nifti(header: Any, line: str) -> None:
    """Write a line into a NIfTI's header."""
    header["descrip"] = line.encode("ascii", "replace")[:NIFTI_LETTERS]


def nifti_mark(header: Any) -> str:
    """The line of a NIfTI's header, whoever wrote it; headers of other formats have none."""
    return header["descrip"].item().decode("latin-1") if "descrip" in header else ""


def restored_by_nifti(header: Any) -> str:
    """What restored a NIfTI before, in its own line; empty: nothing of ours did."""
    line = nifti_mark(header)
    return line if f" by {SOFTWARE} " in line else ""


def dicom_text(text: str) -> str:
    """Text that every character set of a source can hold."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")


def derived_image_type(source: Sequence[str]) -> list[str]:
    """``ImageType`` of an object derived from one of the type ``source``."""
    return ["DERIVED", "SECONDARY", *(list(source[2:]) or ["AXIAL"])]


def contributing_equipment(contribution: Contribution, now: datetime) -> Dataset:
    """This software as contributing equipment (PS3.3 C.12.1), without the code of its purpose."""
    from pydicom.dataset import Dataset

    equipment = Dataset()
    equipment.Manufacturer = SOFTWARE
    equipment.ManufacturerModelName = dicom_text(contribution.model)[:64]
    equipment.SoftwareVersions = [f"{SOFTWARE} {__version__}", dicom_text(contribution.version)[:64]]
    equipment.ContributionDateTime = f"{now:%Y%m%d%H%M%S}"
    equipment.ContributionDescription = contribution.in_dicom
    return equipment


def restored_by_series(header: Dataset) -> str:
    """What restored a DICOM series before, in the words of the first contribution; empty: nothing of ours did."""
    equipment = header.get("ContributingEquipmentSequence") or []
    ours = (str(e.get("ContributionDescription", "")) for e in equipment if e.get("Manufacturer") == SOFTWARE)
    return next((what for what in ours if SIMULATE_DOSE not in what), "")


def phantom_object() -> dict[str, Any]:
    """What a DICOM object of a phantom says of its origin, by keyword."""
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Manufacturer": SOFTWARE,
        "ManufacturerModelName": "phantom",
        "SoftwareVersions": __version__,
    }
