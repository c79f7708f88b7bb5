"""Data sets that are made on this machine before they can be read."""

from outspike import urls
from outspike.config import DataConfig
from outspike.datasets import load
from outspike.errors import ConfigError
from outspike.synth.joined import join_clips
from outspike.synth.miniature import generate


def prepare(data: DataConfig) -> None:
    """Make what can be made and is not there yet: ``miniature``, and ``surv_fight_long``.

    Raises:
        ConfigError: the root of a data set that has to be made is not a local folder.
        DatasetError: ``data.clips_root`` holds no clips.
    """
    if data.dataset == "miniature":
        generate(data.root)
    if data.dataset == "surv_fight_long" and not urls.exists(urls.join(data.root, "labels.csv")):
        _join_fights(data)


def _join_fights(data: DataConfig) -> None:
    if data.clips_root is None or not urls.is_local(data.root):
        raise ConfigError(
            f"{data.root}: no joined videos there. They are made in a local folder from the clips "
            f"of surv_fight: give both with --data.root and --data.clips-root."
        )
    clips = load("surv_fight", data.clips_root).recordings
    join_clips([clip for clip in clips if clip.split == "test"], urls.path_in(data.root))
