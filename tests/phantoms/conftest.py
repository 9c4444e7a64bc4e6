from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ctrestore.phantoms import FAMILIES, build_anatomy, files_of, writing


@pytest.fixture(scope="session")
def anatomies():
    """One head of each family: six seconds apiece, so they are made once."""
    return {family: build_anatomy(family, seed=0) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def anatomy(request, anatomies):
    return anatomies[request.param]


@pytest.fixture
def rendered(monkeypatch):
    """Names of the subjects rendered so far; rendering takes no time and gives tiny images of the right types."""
    names = []

    def render(subject):
        names.append(subject.name)
        images = {}
        for key in sorted(files_of(subject).keys() - {"label"}):
            dtype = np.uint8 if key in ("parcels", "lesions") else np.float32
            images[key] = nib.Nifti1Image(np.full((2, 3, 4), subject.seed % 2, dtype=dtype), np.eye(4))
        return images

    monkeypatch.setattr(writing, "render", render)
    for variable in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    return names
