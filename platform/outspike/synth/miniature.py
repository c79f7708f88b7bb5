"""Write and read the miniature data set.

``generate`` writes below one folder::

    videos/<video_id>.mp4     H.264 videos of everyday scenes and anomalies
    events/<video_id>.raw     some of the same scenes as an event camera sees them (EVT 3.0)
    unseen/<video_id>.mp4     scenes that belong to no split, for ``predict``
    labels.csv, unseen.csv    one row a recording, frame-exact (columns: ``COLUMNS``)
    miniature.json            settings, and sizes of the files once all are written
"""

import csv
import io
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from outspike.errors import ConfigError, DatasetError
from outspike.events.write import write_events
from outspike.recording import Modality, Recording
from outspike.synth.plan import SIZE, Scene, Settings, Studio, scenes
from outspike.synth.stories import Story
from outspike.timebase import EventClock
from outspike.urls import join, read_bytes
from outspike.video.write import write_mp4

DATASET = "miniature"

#: Raised whenever the same settings give other recordings.
FORMAT = 2

#: Columns of ``labels.csv``. ``label`` is 1 for anomalous; ``intervals`` holds half-open anomalous
#: frames as ``start:stop`` joined by ``;``; ``fps`` is an exact ratio; ``scene`` is shared by the
#: video and the event recording of one scene.
COLUMNS = (
    *("video_id", "file", "modality", "split", "label", "class", "synthetic"),
    *("scene", "intervals", "num_frames", "fps", "width", "height"),
)

_STATE = "miniature.json"
_log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MiniatureReport:
    """What ``generate`` found or made; ``already_complete`` when there was nothing to do."""

    root: str
    seed: int
    num_videos: int
    num_event_recordings: int
    num_unseen: int
    num_frames: int
    num_written: int
    already_complete: bool
    seconds: float


def generate(
    root: str | Path,
    *,
    seed: int = 0,
    train: int = 32,
    test: int = 24,
    events: int = 10,
    unseen: int = 2,
    synthetic: int = 0,
) -> MiniatureReport:
    """Write the data set to a local folder; a second call finds it complete and writes nothing.

    A call that was killed is taken up where it stopped.

    Args:
        root: local folder; made if absent.
        seed: other seeds give another camera and other scenes.
        train, test: number of scenes; every other one is anomalous.
        events: how many of these scenes are recorded by an event camera as well.
        unseen: further videos outside every split.
        synthetic: training videos flagged as generated (they look smoother), for loss scaling.

    Raises:
        ConfigError: the folder holds a miniature set made with other settings.
    """
    began = time.monotonic()
    root = Path(root)
    settings = Settings(
        seed=seed, train=train, test=test, events=events, unseen=unseen, synthetic=synthetic
    )
    sizes = _claim(root, settings)
    studio, rows, num_written = Studio(settings), [], 0
    for scene in scenes(settings):
        for row in _rows(scene, studio.story(scene)):
            path = root / row["file"]
            rows.append(row)
            if (
                not path.exists()
                or sizes.get(row["file"], path.stat().st_size) != path.stat().st_size
            ):
                _write_recording(path, studio, scene, row["modality"])
                num_written += 1
    already_complete = bool(sizes) and not num_written
    if not already_complete:
        _write_tables(root, settings, rows)
    seconds = time.monotonic() - began
    _log.info("miniature root=%s written=%d of=%d s=%.1f", root, num_written, len(rows), seconds)
    seen = [row for row in rows if row["split"] != "predict"]
    num_videos = sum(row["modality"] == "video" for row in seen)
    return MiniatureReport(
        root=str(root),
        seed=seed,
        num_videos=num_videos,
        num_event_recordings=len(seen) - num_videos,
        num_unseen=len(rows) - len(seen),
        num_frames=sum(row["num_frames"] for row in rows),
        num_written=num_written,
        already_complete=already_complete,
        seconds=seconds,
    )


def load_labels(root: str, table: str = "labels.csv") -> tuple[Recording, ...]:
    """Recordings of a miniature set below a local folder or S3 prefix, in table order.

    Raises:
        DatasetError: the table lacks a column.
        MissingUrlError: there is no table.
    """
    url = join(root, table)
    reader = csv.DictReader(read_bytes(url).decode().splitlines())
    missing = set(COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise DatasetError(f"{url}: columns {sorted(missing)} are missing; generate it anew.")
    return tuple(_recording(root, row) for row in reader)


def _recording(root: str, row: dict[str, str]) -> Recording:
    modality: Modality = "events" if row["modality"] == "events" else "video"
    is_events = modality == "events"
    return Recording(
        dataset=DATASET,
        video_id=row["video_id"],
        url=join(root, row["file"]),
        modality=modality,
        split=row["split"],
        label=int(row["label"]),
        class_name=row["class"],
        synthetic=row["synthetic"] == "1",
        intervals=_parse_intervals(row["intervals"]),
        group=row["scene"],
        fps=Fraction(row["fps"]) if is_events else None,
        size=(int(row["width"]), int(row["height"])) if is_events else None,
    )


def _claim(root: Path, settings: Settings) -> dict[str, int]:
    """Make the folder ours; returns the file sizes of a complete set, else nothing."""
    for folder in ("videos", "events", "unseen"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    wanted = {"format": FORMAT, "settings": asdict(settings)}
    state = root / _STATE
    if not state.exists():
        _write_text(state, json.dumps(wanted, indent=1))
        return {}
    found: dict[str, Any] = json.loads(state.read_text())
    if {key: found.get(key) for key in wanted} != wanted:
        raise ConfigError(
            f"{root} holds a miniature set made with format {found.get('format')} and "
            f"{found.get('settings')}, asked for is format {FORMAT} and {asdict(settings)}; "
            "choose another folder, or delete that one."
        )
    sizes: dict[str, int] = found.get("files", {})
    return sizes


def _rows(scene: Scene, story: Story) -> list[Row]:
    """One table row for the video of a scene, and one for its event recording if it has one."""
    shared: Row = {
        "split": scene.split,
        "label": int(bool(story.intervals)),
        "class": scene.class_name,
        "synthetic": int(scene.synthetic),
        "scene": scene.name,
        "intervals": ";".join(f"{start}:{stop}" for start, stop in story.intervals),
        "num_frames": scene.num_frames,
        "fps": str(scene.fps),
        "width": SIZE[0],
        "height": SIZE[1],
    }
    folder = "unseen" if scene.split == "predict" else "videos"
    video = {"video_id": scene.name, "file": f"{folder}/{scene.name}.mp4", "modality": "video"}
    rows = [video | shared]
    if scene.with_events:
        name = f"{scene.name}_dvs"
        rows.append({"video_id": name, "file": f"events/{name}.raw", "modality": "events"} | shared)
    return rows


def _write_recording(path: Path, studio: Studio, scene: Scene, modality: str) -> None:
    if modality == "video":
        frames = studio.video_frames(scene)
        write_mp4(path, frames, fps=scene.fps, crf=23, preset="ultrafast")
        return
    end_us = EventClock(fps=scene.fps, anchor_us=0).time_of(scene.num_frames)
    write_events(
        path, studio.events(scene), format="evt3", size=SIZE, anchor_us=0, duration_us=end_us
    )


def _write_tables(root: Path, settings: Settings, rows: Sequence[Row]) -> None:
    """Tables first, then the state that declares the set complete."""
    for name, unseen in (("labels.csv", False), ("unseen.csv", True)):
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if (row["split"] == "predict") == unseen)
        _write_text(root / name, text.getvalue())
    sizes = {row["file"]: (root / row["file"]).stat().st_size for row in rows}
    state = {"format": FORMAT, "settings": asdict(settings), "files": sizes}
    _write_text(root / _STATE, json.dumps(state, indent=1))


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def _parse_intervals(text: str) -> tuple[tuple[int, int], ...]:
    pairs = (part.split(":") for part in text.split(";") if part)
    return tuple((int(start), int(stop)) for start, stop in pairs)
