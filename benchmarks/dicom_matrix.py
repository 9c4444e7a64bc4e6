"""What ctrestore.io.dicom makes of every kind of series, as a table: case, expected, seen.

    python benchmarks/dicom_matrix.py                    # ends with status 1 if anything else was seen than expected

Each case is a small phantom series, changed by pydicom. Cases that need a decoder or a program that is not there are
marked "not here".
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset

from ctrestore.io.dicom import load_series, suv_factor, write_derived_series, write_phantom_series

N = 6
AFFINE = np.array([[-0.7, 0, 0, 11], [0, -0.8, 0, 12], [0, 0, 2.5, -30], [0, 0, 0, 1]])
HU = np.random.default_rng(0).integers(-900, 1500, (64, 48, N)).astype(np.float32)
HOW = {"description": "denoised", "model": "none", "version": "0"}
Edit = Callable[[int, Dataset], Any]
NOT_HERE = "not here"


def series(folder: Path, edit: Edit = lambda k, image: None) -> Path:
    """The phantom, each slice changed by ``edit``; False leaves it out."""
    for k, path in enumerate(write_phantom_series(HU, AFFINE, folder)):
        image = pydicom.dcmread(path)
        if edit(k, image) is False:
            path.unlink()
        else:
            image.save_as(path)
    return folder


def setting(**values: Any) -> Edit:
    return lambda k, image: [setattr(image, name, value) for name, value in values.items()]


def with_stored(change: Callable[[np.ndarray, int], np.ndarray], **values: Any) -> Edit:
    def edit(k: int, image: Dataset) -> None:
        image.PixelData = change(image.pixel_array.copy(), k).tobytes()
        setting(**values)(k, image)

    return edit


def in_12_bits(stored: np.ndarray, k: int) -> np.ndarray:
    return stored.astype("<u2")


def padded(stored: np.ndarray, k: int) -> np.ndarray:
    stored[:4] = -2000
    return stored


def declared_padding(k: int, image: Dataset) -> None:
    with_stored(padded)(k, image)
    image.add_new("PixelPaddingValue", "SS", -2000)


def rescaled(k: int, image: Dataset) -> None:
    """Another slope, intercept -1024 - k, and stored values that give the same HU."""
    slope = [1, 0.5, 0.25, 0.125, 0.25, 0.5][k]
    with_stored(lambda s, k: np.rint((s + k) / slope).astype("<i2"), RescaleSlope=slope, RescaleIntercept=-1024 - k)(
        k, image
    )


def compressed(syntax: uid.UID) -> Edit:
    return lambda k, image: image.compress(syntax, generate_instance_uid=False)


def to_multi_frame(folder: Path) -> Path:
    """The series as one Enhanced CT object, its frames in reverse order."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())][::-1]
    image = slices[0]
    shared, measures, plane, scale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = image.PixelSpacing, image.SliceThickness
    plane.ImageOrientationPatient = image.ImageOrientationPatient
    scale.RescaleSlope, scale.RescaleIntercept = image.RescaleSlope, image.RescaleIntercept
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [scale]
    frames = []
    for item in slices:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = item.ImagePositionPatient
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    pixels = b"".join(item.PixelData for item in slices)
    for name in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope"):
        del image[name]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid.EnhancedCTImageStorage
    image.NumberOfFrames, image.PixelData = len(frames), pixels
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], frames
    for path in folder.iterdir():
        path.unlink()
    image.save_as(folder / "all.dcm")
    return folder


def beside(folder: Path, **values: Any) -> Path:
    """The series, and one more file in its folder."""
    series(folder)
    image = pydicom.dcmread(sorted(folder.iterdir())[0])
    setting(SOPInstanceUID=uid.generate_uid(), **values)(0, image)
    image.save_as(folder / "other.dcm")
    return folder


def cut(folder: Path) -> Path:
    path = sorted(series(folder).iterdir())[2]
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def copied(folder: Path) -> Path:
    shutil.copy(sorted(series(folder).iterdir())[0], folder / "copy.dcm")
    return folder


def as_pet(k: int, image: Dataset) -> None:
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
    drug.RadiopharmaceuticalStartDateTime = "20000101110000"
    setting(
        SOPClassUID=uid.PositronEmissionTomographyImageStorage, Modality="PT", Units="BQML", RescaleIntercept=0,
        RescaleSlope=k + 0.5, DecayCorrection="START", PatientWeight=70, RadiopharmaceuticalInformationSequence=[drug],
    )(k, image)  # fmt: skip


# What is done with a series, and what is seen


def loaded(folder: Path, **options: Any) -> str:
    try:
        volume = load_series(folder, **options).volume
    except ValueError as error:
        return f"refused: {str(error).replace(f'{folder}/', '').replace(str(folder), folder.name)}"
    same = volume.shape == HU.shape and np.array_equal(volume, HU)
    return "HU equal" if same else f"volume {volume.shape}"


def masked(folder: Path) -> str:
    found = load_series(folder)
    expected = np.zeros(HU.shape, dtype=bool)
    expected[:, :4] = True
    same = found.padding is not None and np.array_equal(found.padding, expected)
    air = same and (found.volume[expected] == -1000).all() and np.array_equal(found.volume[~expected], HU[~expected])
    return "masked, air in its place" if air else "padding missed"


def untilted(folder: Path) -> str:
    affine = load_series(folder, untilt=True).affine
    return "resampled, axes at right angles" if abs(affine[:3, 1] @ affine[:3, 2]) < 1e-9 else "sheared"


def activity(folder: Path) -> str:
    found = load_series(folder)
    slopes = np.arange(N) + 0.5
    same = np.allclose(found.volume, (HU + 1024) * slopes) and found.unit == "Bq/ml"
    expected = 70e3 / (370e6 * 2 ** (-3600 / 6586.2))
    return "Bq/ml and SUV by weight" if same and np.isclose(suv_factor(found), expected) else "other values"


def round_trip(folder: Path) -> str:
    found = load_series(folder)
    written = write_derived_series(found.volume, found, folder.with_name("out"), **HOW)
    pairs = zip(written.paths, [item.path for item in found.slices])
    if folder.joinpath("all.dcm").exists():
        return "HU equal" if np.array_equal(load_series(written.paths[0].parent).volume, found.volume) else "DIFFERENT"
    same = all(np.array_equal(pydicom.dcmread(a).pixel_array, pydicom.dcmread(b).pixel_array) for a, b in pairs)
    lossy = pydicom.dcmread(written.paths[0]).get("LossyImageCompression")
    return f"stored values equal{', lossy flag kept' if lossy == '01' else ''}" if same else "DIFFERENT"


def clipped(folder: Path) -> str:
    found = load_series(folder)
    hu = found.volume.copy()
    hu[:2, 0, 0] = 5000, -2000
    written = write_derived_series(hu, found, folder.with_name("out"), **HOW)
    return f"{written.n_clipped} clipped, {load_series(folder.with_name('out')).volume.max():g} HU at most"


def verified(folder: Path) -> str:
    if shutil.which("dciodvfy") is None:
        return NOT_HERE
    found = load_series(folder)
    written = write_derived_series(found.volume, found, folder.with_name("out"), **HOW)
    said = [subprocess.run(["dciodvfy", p], capture_output=True, text=True, check=False).stderr for p in written.paths]
    errors = [line for text in said for line in text.splitlines() if line.startswith("Error")]
    return f"{len(errors)} errors"


def converted(folder: Path) -> str:
    if shutil.which("dcm2niix") is None:
        return NOT_HERE
    import nibabel as nib

    found = load_series(folder)
    out = folder.with_name("out")
    write_derived_series(found.volume, found, out, **HOW)
    subprocess.run(["dcm2niix", "-f", "ct", "-o", folder.parent, out], check=True, capture_output=True)
    theirs = nib.as_closest_canonical(nib.load(folder.parent / "ct.nii"))
    ours = nib.as_closest_canonical(nib.Nifti1Image(found.volume, found.affine))
    same = np.allclose(theirs.affine, ours.affine, atol=1e-4) and np.array_equal(theirs.get_fdata(), ours.get_fdata())
    return "affine and HU equal" if same else "DIFFERENT"


def stored_in_archive(folder: Path) -> str:
    if find_spec("pynetdicom") is None:
        return NOT_HERE
    from pynetdicom import AE, evt

    found = load_series(folder)
    written = write_derived_series(found.volume, found, folder.with_name("out"), **HOW)
    archive, sender = AE(), AE()
    archive.add_supported_context(uid.CTImageStorage)
    sender.add_requested_context(uid.CTImageStorage, uid.ExplicitVRLittleEndian)
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
    try:
        link = sender.associate("127.0.0.1", server.socket.getsockname()[1])
        accepted = sum(link.send_c_store(pydicom.dcmread(path)).Status == 0 for path in written.paths)
        link.release()
    finally:
        server.shutdown()
    return f"{accepted} of {N} accepted"


def tilt(k: int, image: Dataset) -> None:
    image.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(0.3)), float(np.sin(0.3))]


def decoder(name: str, syntax: uid.UID) -> tuple[Callable[[Path], Path], Callable[[Path], str]]:
    if find_spec(name) is None:
        return series, lambda folder: NOT_HERE
    return (lambda folder: series(folder, compressed(syntax))), loaded


def edited(edit: Edit) -> Callable[[Path], Path]:
    return lambda folder: series(folder, edit)


# case, expected, how the series is made, what is done with it
CASES: list[tuple[str, str, Callable[[Path], Path], Callable[[Path], str]]] = [
    ("signed, 16 bits", "HU equal", series, loaded),
    ("unsigned, 12 of 16 bits", "HU equal",
     edited(with_stored(in_12_bits, PixelRepresentation=0, BitsStored=12, HighBit=11)), loaded),
    ("another slope and intercept a slice", "HU equal",
     edited(rescaled), loaded),
    ("padding declared", "masked, air in its place", edited(declared_padding), masked),
    ("padding declared as its unsigned twin 63536", "masked, air in its place",
     edited(lambda k, i: (with_stored(padded)(k, i), i.add_new("PixelPaddingValue", "US", 63536))), masked),
    ("padding not declared, -3024 HU in the corners", "masked, air in its place", edited(with_stored(padded)), masked),
    ("MONOCHROME1", "HU equal", edited(setting(PhotometricInterpretation="MONOCHROME1")), loaded),
    ("enhanced multi-frame, frames reversed", "HU equal", lambda f: to_multi_frame(series(f)), loaded),
    ("RLE", "HU equal", *decoder("numpy", uid.RLELossless)),
    ("JPEG-LS", "HU equal", *decoder("jpeg_ls", uid.JPEGLSLossless)),
    ("JPEG 2000", "HU equal", *decoder("pylibjpeg", uid.JPEG2000Lossless)),
    ("a localizer in the folder", "HU equal",
     lambda f: beside(f, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=24, Columns=128), loaded),
    ("a report in the folder", "HU equal",
     lambda f: beside(f, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", SeriesInstanceUID="1.2.3"), loaded),
    ("PET, another slope a slice", "Bq/ml and SUV by weight", edited(as_pet), activity),
    ("gantry tilt, untilt=True", "resampled, axes at right angles", edited(tilt), untilted),
    ("gantry tilt", "refused: gantry tilt of 17.2 degrees", edited(tilt), loaded),
    ("a slice is missing", "refused: 1 of 6 slices are missing", edited(lambda k, i: k != 3), loaded),
    ("uneven steps", "refused: uneven steps",
     edited(lambda k, i: setattr(i, "ImagePositionPatient", [0, 0, 2.5 * k + 0.9 * (k > 2)])), loaded),
    ("a file is there twice", "refused: duplicate slices", copied, loaded),
    ("two phases in one series", "refused: several phases",
     edited(lambda k, i: setattr(i, "ImagePositionPatient", [0, 0, k // 2])), loaded),
    ("mixed sizes", "refused: slices of different sizes", lambda f: beside(f, Rows=24), loaded),
    ("mixed orientations", "refused: slices of different orientations",
     lambda f: beside(f, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), loaded),
    ("two series, none named", "refused: 2 series, and none was named",
     lambda f: beside(f, SeriesInstanceUID="1.2.3"), loaded),
    ("MR", "refused: no slices of CT or PET; found 6 x MR",
     edited(setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR")), loaded),
    ("PET in counts", "refused: Units CNTS, expected BQML",
     edited(lambda k, i: (as_pet(k, i), setting(Units="CNTS")(k, i))), loaded),
    ("no pixel spacing", "refused: no PixelSpacing", edited(lambda k, i: i.pop("PixelSpacing")), loaded),
    ("no rescale", "refused: RescaleSlope nan", edited(lambda k, i: i.pop("RescaleSlope")), loaded),
    ("iodine map of spectral CT", "refused: RescaleType MGML", edited(setting(RescaleType="MGML")), loaded),
    ("one slice", "refused: the series is one slice", edited(lambda k, i: k == 0), loaded),
    ("a truncated file", "refused: truncated or damaged", cut, loaded),
    ("written unchanged", "stored values equal", series, round_trip),
    ("written unchanged, padding", "stored values equal", edited(declared_padding),
     round_trip),
    ("written unchanged, lossy source", "stored values equal, lossy flag kept",
     edited(setting(LossyImageCompression="01")), round_trip),
    ("written from enhanced multi-frame", "HU equal", lambda f: to_multi_frame(series(f)), round_trip),
    ("written, 5000 and -2000 HU in 12 bits", "2 clipped, 3071 HU at most",
     edited(with_stored(in_12_bits, PixelRepresentation=0, BitsStored=12, HighBit=11)), clipped),
    ("written, judged by dciodvfy", "0 errors", series, verified),
    ("written, sent to a store (pynetdicom)", "6 of 6 accepted", series, stored_in_archive),
    ("written, converted by dcm2niix", "affine and HU equal", series, converted),
]  # fmt: skip


def as_expected(expected: str, seen: str) -> bool:
    """Whether it is the expected result, or a refusal that says what is expected of it."""
    kind, _, words = expected.partition("refused: ")
    return seen == expected if kind else seen.startswith("refused: ") and words in seen


def rows() -> Iterator[tuple[str, str, str]]:
    """Case, expected, seen."""
    for case, expected, make, act in CASES:
        with tempfile.TemporaryDirectory() as work:
            yield case, expected, act(make(Path(work) / "series"))


def main() -> None:
    print("| Case | Expected | Seen |\n| --- | --- | --- |")
    wrong = 0
    for case, expected, seen in rows():
        right = seen == NOT_HERE or as_expected(expected, seen)
        wrong += not right
        short = " ".join(seen.split())
        print(f"| {case} | {expected} | {'' if right else '**WRONG** '}{short[:160]} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
