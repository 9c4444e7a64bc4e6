"""The evaluator of a bundle run scan by scan, its slices written as they come."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from tqdm import tqdm

from ctrestore.ct.resolution import lower_resolution
from ctrestore.errors import InputError, ScansFailed
from ctrestore.io.whole import writable_folder
from ctrestore.tasks.ct_restoration.changes import Changes
from ctrestore.tasks.ct_restoration.finding import Scans
from ctrestore.tasks.ct_restoration.outputs import BetweenSlices, How, Output, Restorable
from ctrestore.tasks.runtime import for_each_scan
from ctrestore.training.weights import LoadWeights

N_COUNTED = 64  # slices of a scan at most, evenly spread, that its summary is made of: counting takes 0.04 s a slice


def _path_of(weights: str | None) -> Path | None:
    """The file of the weights; the command line says that there are none by ``none``."""
    return None if weights in (None, "none") else Path(str(weights))


class WriteScans:
    """Write the restored slices of an evaluator to their scans' outputs, each whole or not at all.

    Slices come in order, scan after scan. After the last one of a scan a line says what changed in it.

    Args:
        scans: that the slices are of.
        bundle_root: of the bundle, whose name and version the outputs are marked with.
        weights: file, whose checksum they are marked with; None: there are none.
        description: what is done to them; the title of a series ends with it.
        scale: how many times finer the restored slices are, along both axes.
        through_plane: how many slices take the place of one, those between interpolated.
        pred_key: restored slice ``(1, scale x, scale y)`` in HU.
        scan_key: slice before it, in HU.
    """

    def __init__(
        self,
        scans: Scans,
        bundle_root: str,
        weights: str | None = None,
        description: str = "denoised",
        scale: int = 1,
        through_plane: int = 1,
        pred_key: str = "pred",
        scan_key: str = "scan",
    ) -> None:
        self.scans, self.weights = scans, _path_of(weights)
        self.bundle_root, self.description = Path(bundle_root).resolve(), description
        self.scale, self.through_plane = scale, through_plane
        self.pred_key, self.scan_key = pred_key, scan_key
        self.current: tuple[Restorable, Output, Changes, tqdm] | None = None
        self.n_done = 0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raised)

    def how(self) -> How:
        """The marks."""
        metadata = self.bundle_root / "configs" / "metadata.json"
        version = json.loads(metadata.read_text(encoding="utf-8"))["version"] if metadata.is_file() else "unknown"
        checksum = None if self.weights is None else hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return How(self.description, self.bundle_root.name, str(version), checksum, self.scale, self.through_plane)

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        for before, after in zip(state.batch, state.output):
            item = {**before, **after}
            found, k = self.scans.found[int(item["number"])], int(item["slice"])
            if k == 0:
                self.begin(found)
            if self.current is None or self.current[0] is not found:
                raise InputError(
                    f"{found}: slice {k + 1} without those before it. Remedy: a loader that does not shuffle."
                )
            _, output, changes, bar = self.current
            hu, restored = (torch.as_tensor(item[key])[0].cpu().numpy() for key in (self.scan_key, self.pred_key))
            padding = output.add(restored)
            n_slices = found.scan.shape[2]
            if k % -(-n_slices // N_COUNTED) == 0:
                if self.scale > 1:  # what the scan would have seen of it
                    restored = lower_resolution(restored, factors=(self.scale, self.scale))
                    padding = padding[:: self.scale, :: self.scale]
                changes.count(hu, restored, padding)
            bar.update()
            if k + 1 == n_slices:
                self.finish()

    def begin(self, found: Restorable) -> None:
        """Open the output of a scan."""
        self.abandon()
        writable_folder(found.target.parent)
        how = self.how()
        output = found.output(how)
        if self.through_plane > 1:
            output = BetweenSlices(found, output, how)
        output.__enter__()
        bar = tqdm(total=found.scan.shape[2], desc=Path(found.name).name, unit="slice")
        self.current = found, output, Changes(), bar

    def finish(self) -> None:
        """Put the output in its place and say what changed."""
        if self.current is None:
            return
        found, output, changes, bar = self.current
        self.current = None
        bar.close()
        output.__exit__(None, None, None)
        found.scan.release()
        self.n_done += 1
        clipped = f"; {output.n_clipped} values clipped" if output.n_clipped else ""
        print(f"{found}: {changes}{clipped}; written to {found.target}", flush=True)

    def abandon(self) -> None:
        """Leave nothing of an output that is not finished."""
        if self.current is None:
            return
        found, output, _, bar = self.current
        self.current = None
        bar.close()
        found.scan.release()
        output.__exit__(InterruptedError, None, None)

    def _raised(self, engine: Engine, error: Exception) -> None:
        self.abandon()
        raise error


def restore_each(evaluator: Any, dataset: Dataset, writer: WriteScans, weights: LoadWeights) -> None:
    """Run the evaluator scan by scan; a bad scan is reported and the others go on.

    Args:
        evaluator: with the writer among its handlers; its loader says how many slices make a batch.
        dataset: of the slices.
        writer: of the scans.
        weights: of the evaluator's network, loaded first.

    Raises:
        InputError: nothing can be done (no scan, weights), or, at the end, scans failed.
    """
    if not writer.scans.found and not writer.scans.failed:
        raise InputError(
            "no CT: there is no DICOM, no NIfTI file and no picture. Usual cause: another folder of the study. Remedy: "
            "name the folder of the CT."
        )
    weights.load()
    # After an exception ignite would take the next run for the rest of the failed one, and skip that scan silently.
    evaluator.interrupt_resume_enabled = False
    evaluator.logger.setLevel(logging.CRITICAL)  # it would announce every bad scan twice, without its name
    loader = evaluator.data_loader

    def restore(number: int) -> None:
        slices = Dataset(writer.scans.entries_of(number), dataset.transform)
        evaluator.data_loader = DataLoader(slices, batch_size=loader.batch_size, num_workers=loader.num_workers)
        evaluator.state.epoch_length = len(evaluator.data_loader)
        try:
            evaluator.run()
        finally:
            writer.abandon()
            writer.scans.found[number].scan.release()

    numbered = [(str(found), number) for number, found in enumerate(writer.scans.found)]
    _, failed = for_each_scan(numbered, restore, failed=writer.scans.failed)  # the writer shows its slices
    if failed:
        raise ScansFailed("restored", failed)
