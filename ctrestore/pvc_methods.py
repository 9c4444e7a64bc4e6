"""The table of partial volume corrections: one row for each method.

A new method is a file in ``ctrestore/pvc/`` and a row here. The rest reads the row: :func:`ctrestore.pvc.correct`, the
help and the checks of ``ctrestore pvc`` and ``petpvc``, the names and sidecars of their outputs, and the tests of all
methods. The table lies outside ``ctrestore.pvc`` and imports nothing, so that ``--help`` does not load numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Masks = Literal["none", "regions", "tissues", "brain"]
Gives = Literal["image", "grey matter", "brain", "means"]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: as users write it; upper and lower case do not matter.
        function: ``file.function`` in ``ctrestore/pvc/``. It is called as ``function(image, regions, *, fwhm_mm,
            spacing_mm, kernel, **options)``, without ``regions`` if ``masks`` is "none", and returns what ``gives``
            says, or a :class:`ctrestore.pvc.Correction` where it knows more.
        help: one line.
        masks: what the user has to give: "none"; "regions" of any kind; "tissues", grey matter first and white matter
            second; or "brain", one mask or the tissues.
        gives: the whole "image"; an image of "grey matter" or "brain" that is zero elsewhere; or the "means" of the
            regions, without an image.
        options: arguments of :func:`ctrestore.pvc.correct` that the function takes. Their keywords have the same names,
            but for ``n_deconvolutions``, which a function calls ``n_iterations``.
        means_from: names of methods whose means the function takes as ``means``. The first is the default; another one
            stands before the name, as in LABBE+RBV.
        deconvolved: whether the name may be followed by a deconvolution, as in RBV+VC.
        within: of a deconvolution, the function that does it within regions, after another method.
        label: stands in the file name of BIDS derivatives, ``desc-pvc<label>``; default: the name without signs.
    """

    name: str
    function: str
    help: str
    masks: Masks = "regions"
    gives: Gives = "image"
    options: tuple[str, ...] = ()
    means_from: tuple[str, ...] = ()
    deconvolved: bool = False
    within: str = ""
    label: str = ""


#: Names are PETPVC's; MELTZER and mMG are ours.
TABLE: tuple[Method, ...] = (
    Method("GTM", "gtm.gtm", "region means by the geometric transfer matrix", gives="means"),
    Method("LABBE", "labbe.labbe", "region means by least squares", gives="means"),
    Method("RBV", "rbv.rbv", "region-based voxel-wise correction", means_from=("GTM", "LABBE"), deconvolved=True),
    Method("MTC", "mtc.mtc", "multi-target correction", means_from=("GTM", "LABBE"), deconvolved=True),
    Method("IY", "iterative_yang.iterative_yang", "iterative Yang", options=("n_iterations",), deconvolved=True),
    Method(
        "MG",
        "muller_gartner.with_deep_white",
        "Müller-Gärtner, value of white matter from deep white matter",
        masks="tissues",
        gives="grey matter",
        options=("convention", "white_value"),
        deconvolved=True,
    ),
    Method(
        "mMG",
        "muller_gartner.with_means",
        "Müller-Gärtner, values of white matter and CSF",
        masks="tissues",
        gives="grey matter",
        options=("convention",),
        means_from=("GTM",),
    ),
    Method("MELTZER", "meltzer.in_brain", "brain against the rest", masks="brain", gives="brain"),
    Method("STC", "stc.stc", "single-target correction", options=("n_iterations",)),
    Method(
        "RL",
        "richardson_lucy.richardson_lucy",
        "Richardson-Lucy deconvolution",
        masks="none",
        options=("n_deconvolutions",),
        within="within_regions.richardson_lucy_within",
    ),
    Method(
        "VC",
        "van_cittert.reblurred_van_cittert",
        "reblurred Van Cittert deconvolution",
        masks="none",
        options=("n_deconvolutions", "alpha", "stop"),
        within="within_regions.van_cittert_within",
    ),
)


@dataclass(frozen=True)
class Chain:
    """What one name stands for: a row, the row of its means if it takes any, and a deconvolution after it.

    Attributes:
        row: what corrects.
        means: whose means it takes.
        then: what deconvolves afterwards.
    """

    row: Method
    means: Method | None = None
    then: Method | None = None

    @property
    def _named(self) -> list[Method]:
        first = [] if self.means is None or self.means.name == self.row.means_from[0] else [self.means]
        return [*first, self.row, *([] if self.then is None else [self.then])]

    @property
    def name(self) -> str:
        """``LABBE+RBV+VC``."""
        return "+".join(row.name for row in self._named)

    @property
    def label(self) -> str:
        """Of BIDS derivatives, ``LABBERBVVC``."""
        return "".join(row.label or "".join(filter(str.isalnum, row.name)) for row in self._named)

    @property
    def help(self) -> str:
        """One line."""
        means = "" if self.means is None else f", means of {self.means.name}"
        place = "the regions" if self.row.gives == "image" else self.row.gives
        if self.then is not None:
            return f"{Chain(self.row, self.means).name}, then {self.then.name} within {place}"
        return self.row.help + means

    @property
    def options(self) -> set[str]:
        """The arguments of :func:`ctrestore.pvc.correct` that make a difference."""
        return {option for row in (self.means, self.row, self.then) if row is not None for option in row.options}


def chains(table: Iterable[Method] = TABLE) -> dict[str, Chain]:
    """All methods by name: every row, with each way to its means, alone and with each deconvolution after it."""
    rows = {row.name: row for row in table}
    listed = []
    for row in rows.values():
        ways: list[Method | None] = [rows[name] for name in row.means_from]
        after: list[Method | None] = [other for other in rows.values() if other.within and row.deconvolved]
        listed += [Chain(row, means, then) for means in ways or [None] for then in [None, *after]]
    return {chain.name: chain for chain in listed}


CHAINS = chains()
#: What each method does, by name.
METHODS: dict[str, str] = {name: chain.help for name, chain in CHAINS.items()}
#: Their result is the means alone.
TABLES = tuple(row.name for row in TABLE if row.gives == "means")
WITHOUT_REGIONS = tuple(row.name for row in TABLE if row.masks == "none")


def taking(option: str) -> str:
    """Names of the rows that take an option, as a text: ``IY and STC``."""
    names = [row.name for row in TABLE if option in row.options]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
