"""Every data set by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from outspike.datasets import (
    avenue,
    folder,
    gv_vad,
    lad2000,
    miniature,
    surv_fight,
    ucf_generated,
    ucsd_ped2,
)
from outspike.datasets.files import FileTree
from outspike.datasets.known import (
    AVENUE,
    MSAD,
    SHANGHAITECH,
    TAD,
    UCF_CRIME,
    UCF_CRIME_DVS,
    XD_VIOLENCE,
)
from outspike.datasets.manifest import Manifest
from outspike.datasets.published import Published, load_published, warnings_of
from outspike.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a data set is loaded, which splits it has, and one line about it for listings."""

    load: Callable[[str, str], Manifest]
    summary: str
    splits: tuple[str, ...] = ("official",)
    supervised: frozenset[str] = frozenset()
    """Splits whose frame labels training may learn from; in all others they are for tests only."""


def _published(known: Published, root: str, split: str) -> Manifest:
    return load_published(known, FileTree.scan(root), split)


def _folder_as(name: str, root: str, split: str) -> Manifest:
    """Files in the layout of ``folder`` under a data set's own name."""
    found = folder.load(root, split)
    recordings = tuple(replace(recording, dataset=name) for recording in found.recordings)
    return replace(found, name=name, recordings=recordings)


DATASETS: dict[str, Source] = {
    "miniature": Source(
        load=miniature.load,
        summary="generated scenes with known anomalies, made in seconds",
        supervised=frozenset({"official"}),
    ),
    "folder": Source(
        load=folder.load,
        summary="your own videos and event recordings, labelled by folder or labels.csv",
        supervised=frozenset({"official"}),
    ),
    "ucsd_ped2": Source(
        load=ucsd_ped2.load,
        summary="UCSD Ped2 walkway, 28 clips",
        splits=("official", "weak-a", "weak-rtfm", "lad-reseeded", "full-a"),
        supervised=ucsd_ped2.UCSD_PED2.supervised,
    ),
    "surv_fight": Source(
        load=surv_fight.load,
        summary="Surveillance Camera Fight, two-second CCTV clips",
    ),
    "surv_fight_long": Source(
        load=partial(_folder_as, "surv_fight_long"),
        summary="test clips of surv_fight joined into longer videos with known frames",
    ),
    "gv_vad": Source(
        load=gv_vad.load,
        summary="generated clips of GV-VAD, for training only",
        splits=("official", "ucfg2"),
    ),
    "ucf_crime": Source(
        load=partial(_published, UCF_CRIME),
        summary="UCF-Crime, 1610 training and 290 test videos",
    ),
    "ucf_crime_dvs": Source(
        load=partial(_published, UCF_CRIME_DVS),
        summary="UCF-Crime-DVS, the same as event recordings",
    ),
    "ucf_generated": Source(
        load=ucf_generated.load,
        summary="UCF-Crime with generated clips in training (GV-VAD)",
        splits=("ucfg2", "ucfg1"),
    ),
    "xd_violence": Source(
        load=partial(_published, XD_VIOLENCE),
        summary="XD-Violence, 3954 training and 800 test videos",
        splits=("official", "as-trained"),
    ),
    "shanghaitech": Source(
        load=partial(_published, SHANGHAITECH),
        summary="ShanghaiTech Campus, weakly supervised: 238 training and 199 test videos",
        splits=("official", "as-trained"),
    ),
    "msad": Source(
        load=partial(_published, MSAD),
        summary="MSAD, 479 training and 241 test videos",
    ),
    "lad2000": Source(
        load=lad2000.load,
        summary="LAD2000, 1440 training and 560 test videos, split lists from the download",
        supervised=frozenset({"official"}),
    ),
    "avenue": Source(
        load=avenue.load,
        summary="CUHK Avenue, 37 videos, frame labels from the download",
        splits=("official", "lad-reseeded"),
        supervised=AVENUE.supervised,
    ),
    "tad": Source(
        load=partial(_published, TAD),
        summary="TAD traffic anomalies, 400 training and 100 test videos",
    ),
}


def load(name: str, root: str, split: str = "official") -> Manifest:
    """Recordings of data set ``name`` under ``root``, as ``split`` divides them.

    ``official`` is every data set's default split, under whatever name it goes.

    Raises:
        ConfigError: no such data set or split.
        DatasetError: the files found contradict the lists, or nothing is there.
    """
    source = DATASETS.get(name)
    if source is None:
        raise ConfigError(f"No data set is called {name!r}; known: {', '.join(DATASETS)}.")
    if split == "official":
        split = source.splits[0]
    if split not in source.splits:
        raise ConfigError(f"{name} has no split {split!r}; it has {', '.join(source.splits)}.")
    return source.load(root, split)


def is_supervised(name: str, split: str) -> bool:
    """Whether a split is declared fully supervised: training may learn from its frame labels.

    A data set or split that nobody has declared is not.
    """
    source = DATASETS.get(name)
    if source is None:
        return False
    return (source.splits[0] if split == "official" else split) in source.supervised


#: Data sets whose recordings, labels and split defects are tables of this package.
PUBLISHED: Mapping[str, Published] = {
    known.name: known
    for known in (
        UCF_CRIME,
        UCF_CRIME_DVS,
        XD_VIOLENCE,
        SHANGHAITECH,
        MSAD,
        TAD,
        AVENUE,
        ucsd_ped2.UCSD_PED2,
    )
}


def known_defects(name: str, split: str) -> tuple[str, ...]:
    """What is known to be wrong with a published split, whatever files there are; else nothing."""
    published = PUBLISHED.get(name)
    return () if published is None else warnings_of(published, split)
