"""What a classifier is shown: one slice or volume, in HU or in the grey values of an 8-bit picture."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from PIL import Image, UnidentifiedImageError

from ctrestore.errors import InputError
from ctrestore.io.ct_scan import PICTURES, Scan, open_scan, slice_in_ras

InputKind = Literal["hu", "grey"]
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)


def check_input_kind(kind: str) -> InputKind:
    """The kind, if there is such.

    Raises:
        InputError: there is none.
    """
    if kind not in INPUT_KINDS:
        raise InputError(f"input_kind is one of {', '.join(INPUT_KINDS)}; got {kind!r}.")
    return kind


def is_picture(path: str | Path) -> bool:
    """Whether a file's name ends like a picture's."""
    return str(path).lower().endswith(PICTURES)


def read_grey(path: str | Path) -> np.ndarray:
    """An 8-bit picture as grey values ``(x, y)``, float32 in 0..255; colour becomes its luminance.

    Raises:
        InputError: no picture, a damaged or empty one, 16 bits, or transparent pixels.
    """
    path = Path(path)
    if not is_picture(path):
        raise InputError(
            f"{path}: expected an 8-bit picture ({', '.join(PICTURES)}), as the weights were trained on; a scan in HU "
            "looks different. Remedy: weights that were trained on HU, or pictures made like those of the training."
        )
    if path.is_file() and not path.stat().st_size:
        raise InputError(f"{path}: an empty file. Usual cause: an interrupted download. Remedy: fetch it again.")
    try:
        image: Image.Image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({error}). Remedy: export or fetch it again.") from error
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{path}: more than 8 bits a pixel (mode {image.mode}), whose grey values mean something else. Remedy: "
            "export it with 8 bits and the window of the training's pictures, or classify the DICOM with weights for "
            "HU."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            raise InputError(f"{path}: some pixels are transparent. Remedy: export it without an alpha channel.")
    return np.asarray(image.convert("RGB").convert("L"), dtype=np.float32).T


class LoadClassifiedd(MapTransform):
    """Read what an entry names: ``(1, x, y)``, or a volume ``(1, x, y, z)``, float32 in HU or grey values.

    The axes of a scan run to the patient's right, front and head, however they are stored; those of a picture of grey
    values, which does not know them, as it is shown.

    Args:
        keys: of paths, or of scans that are open.
        input_kind: ``hu``: NIfTI, DICOM, and pictures whose entry knows its ``range_hu``; ``grey``: 8-bit pictures.
        volume: the whole scan instead of the slice that the entry names under ``slice`` (else the middle one).
        allow_missing_keys: MONAI's.
    """

    def __init__(
        self, keys: KeysCollection, input_kind: str = "hu", volume: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.input_kind, self.volume = check_input_kind(input_kind), volume
        if volume and self.input_kind == "grey":
            raise InputError("a volume of 8-bit pictures cannot be read. Remedy: input_kind hu, NIfTI or DICOM.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.input_kind == "grey":
                image = read_grey(d[key])
            else:
                scan = self._opened(d[key], d.get("range_hu"))
                if self.volume:
                    image = np.stack([slice_in_ras(scan, k)[0] for k in range(scan.shape[2])], axis=-1)
                    image = image[..., ::-1] if nib.io_orientation(scan.affine)[2, 1] < 0 else image
                else:
                    image, _ = slice_in_ras(scan, int(d.get("slice", scan.shape[2] // 2)))
            d[key] = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
        return d

    def _opened(self, scan: Any, given: Any) -> Scan:
        if not isinstance(scan, str | Path):
            return scan
        return open_scan(scan, range_hu=None if given is None else (float(given[0]), float(given[1])))
