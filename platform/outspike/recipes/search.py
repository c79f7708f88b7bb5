"""What ``jobs/tune.py`` takes by name."""

import dataclasses
from collections.abc import Callable

from outspike.config import SelectionConfig, TuneConfig
from outspike.recipes.miniature import msf_miniature
from outspike.recipes.real import ssls_ped2


def tune_msf_miniature() -> TuneConfig:
    """Learning rate, dropout and window of the spiking detector on the miniature set."""
    base = msf_miniature()
    return TuneConfig(
        name="miniature-search",
        train=dataclasses.replace(
            base,
            steps=100,
            selection=SelectionConfig(split="holdout", share=0.34, every_steps=25),
        ),
        space=(
            "optim.lr=log:1e-4:3e-2",
            "detector.dropout=uniform:0:0.6",
            "window.length=choice:8,16,32",
        ),
        num_trials=8,
        grace_steps=25,
    )


def tune_ssls_ablation() -> TuneConfig:
    """The grid that GV-VAD's run script shows, over three seeds, on Ped2 with generated clips.

    Fixed, learned and scheduled weights of generated clips (``gv_vad_ssls.md`` section 8), and none
    of them at all; weight 1 is the unscaled loss. ``--train.data...`` puts other data in its place.
    """
    fixed = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5)
    learned = (0.1, 0.25, 0.5, 1)  # where they start, which is half their bound
    schedules = ("linear_cosine", "exponential_step", "cosine_none")
    # A fold keeps three of the four anomalous training clips: three and three real bags a step.
    cases = [
        "off,fixed,1,none,0,6",
        *(f"per_sample,fixed,{scale},none,4,10" for scale in fixed),
        *(f"per_sample,learned,{2 * start},none,4,10" for start in learned),
        *(f"per_sample,schedule,0.5,{schedule},4,10" for schedule in schedules),
    ]
    fields = "ssls.mode,ssls.policy,ssls.scale,ssls.schedule,synthetic_per_batch,bags_per_batch"
    return TuneConfig(
        name="ssls-ablation",
        train=dataclasses.replace(
            ssls_ped2(),
            selection=SelectionConfig(
                split="cross_validation", num_folds=4, metric="video_auc", every_steps=200
            ),
        ),
        space=(f"{fields}=cases:{'|'.join(cases)}", "seed=choice:0,1,2"),
        sampler="grid",
        early_stop=False,
    )


TUNE_RECIPES: dict[str, Callable[[], TuneConfig]] = {
    "msf-miniature": tune_msf_miniature,
    "ssls-ablation": tune_ssls_ablation,
}
