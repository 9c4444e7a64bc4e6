"""What a correction gave, as a table of regions and as the content of a JSON sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctrestore import __version__
from ctrestore.commands.pvc.frames import Frame, Settings
from ctrestore.commands.pvc.region_tables import region_table
from ctrestore.io.grid import Grid
from ctrestore.io.nifti import fwhm_of_patient_axes, read_sidecar
from ctrestore.pvc import Regions


@dataclass(frozen=True)
class Result:
    """A corrected PET without its voxels. ``inputs`` are the files that went in, the PET first."""

    pet: Path
    inputs: Sequence[Path]
    grid: Grid
    settings: Settings
    regions: Regions | None
    frames: list[Frame]

    def table(self, reference: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Rows of :func:`region_table`; none without regions."""
        if self.regions is None:
            return []
        voxel_ml = float(np.prod(self.settings.spacing_mm)) / 1000
        volumes_ml = np.asarray(self.regions.totals(), dtype=float) * voxel_ml
        return region_table(
            list(self.regions.names),
            volumes_ml,
            self.frames,
            reference=reference,
            frame_times_s=self._frame_times_s(),
        )

    def _frame_times_s(self) -> list[tuple[float, float]] | None:
        """Start and duration of the frames, if the PET's sidecar holds them for every frame."""
        sidecar, n_frames = read_sidecar(self.pet), len(self.frames)
        starts, durations = sidecar.get("FrameTimesStart"), sidecar.get("FrameDuration")
        if not isinstance(starts, list) or not isinstance(durations, list):
            return None
        if {len(starts), len(durations)} != {n_frames}:
            return None
        return [(float(start), float(duration)) for start, duration in zip(starts, durations)]

    def sidecar(self, command_line: str) -> dict[str, Any]:
        """The PET's sidecar with what was done to it; keys that PETPrep writes too have its names."""
        content, settings = read_sidecar(self.pet), self.settings
        options = settings.chain.options
        content |= {
            "Description": f"PET after partial volume correction by {settings.method}",
            "PVCMethod": settings.method,
            **dict(zip(("FWHM_x", "FWHM_y", "FWHM_z"), fwhm_of_patient_axes(settings.fwhm_mm, self.grid.affine))),
            "PVCKernel": settings.kernel,
            "SoftwareName": "ctrestore",
            "SoftwareVersion": __version__,
            "CommandLine": command_line,
            "SkullStripped": settings.of_a_part or bool(content.get("SkullStripped", False)),
        }
        if "n_iterations" in options:
            content["PVCIterations"] = settings.n_iterations
        if "n_deconvolutions" in options:
            content["PVCDeconvolutionIterations"] = settings.n_deconvolutions
        if "alpha" in options:
            content |= {"PVCAlpha": settings.alpha, "PVCStop": settings.stop}
        if "convention" in options:
            content["PVCConvention"] = settings.convention
            content["PVCWhiteMatterValue"] = _per_frame([frame.white_value for frame in self.frames])
        if not settings.of_a_part:
            content["PVCReblurredResidual"] = _per_frame([frame.residual for frame in self.frames])
        if self.regions is not None:
            means = [frame.means_after for frame in self.frames]
            content["PVCBackgroundAdded"] = bool(self.regions.background_added)
            content["PVCRegionMeans"] = {
                name: _per_frame([None if mean is None else float(mean[region]) for mean in means])
                for region, name in enumerate(self.regions.names)
            }
        return content


def _per_frame(values: Sequence[float | None]) -> Any:
    """Six digits: one number of a static scan, a list of a dynamic one; null where there is none."""
    rounded = [None if v is None or not np.isfinite(v) else float(f"{v:.6g}") for v in values]
    return rounded[0] if len(rounded) == 1 else rounded
