"""Recipes: plain functions that return a whole config; a variant calls another and replaces.

``jobs/extract.py RECIPE`` and ``jobs/train.py RECIPE`` take these by name; any field can be
overridden on the command line (``--train.lr``-like dotted names). Nothing heavy is imported here.
"""

import dataclasses
from collections.abc import Callable

from outspike.config import (
    AedConfig,
    CrossfitConfig,
    DataConfig,
    EncoderConfig,
    EvaluateConfig,
    ExtractConfig,
    GvVadConfig,
    IefVadConfig,
    MotionFloorConfig,
    MsfConfig,
    OptimConfig,
    PredictConfig,
    SaaConfig,
    SelectionConfig,
    SslsConfig,
    StoreConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
)
from outspike.timebase import SnippetGrid

EVENT_PYRAMID = EncoderConfig(kind="event-pyramid")
FRAME_PYRAMID = EncoderConfig(kind="frame-pyramid")
#: The floor looks at every frame.
FRAME_MOTION = EncoderConfig(kind="frame-motion", grid=SnippetGrid(snippet_frames=1, stride=1))

#: Small IEF-VAD on the two pyramids.
IEF_VAD_SMALL = IefVadConfig(
    image_width=244,
    event_width=184,
    width=128,
    num_heads=4,
    refinement_steps=4,
    input_norm="standardise",
    input_clip=6.0,
)

#: The same with the weak regularisation that is published for XD-Violence.
IEF_VAD_LOOSE = dataclasses.replace(IEF_VAD_SMALL, reg_weight=0.01, kl_weight=0.01)

#: Small SAA on the event pyramid.
SAA_SMALL = SaaConfig(
    feature_set="event-pyramid",
    width=184,
    attention_width=64,
    classifier_widths=(64, 32),
    dropout=0.3,
    guide_steps=100,
    input_norm="standardise",
    input_clip=6.0,
)

#: Small AED_T on the event pyramid.
AED_SMALL = AedConfig(
    feature_set="event-pyramid",
    width=184,
    hidden=16,
    down=64,
    head=32,
    input_norm="standardise",
    input_clip=6.0,
)

#: The categories of LAD2000 in the order of their numbers, spelt as published.
LAD2000_CLASSES = (
    "Crash",
    "Crowd",
    "Destroy",
    "Drop",
    "FallIntoWater",
    "Falling",
    "Fighting",
    "Fire",
    "Hurt",
    "Loitering",
    "Panic",
    "Thiefing",
    "Trampled",
    "Violence",
)

#: GV-VAD without captions on the event pyramid: no weights, no prompts.
GV_VAD_SMALL = GvVadConfig(
    feature_group="vis",
    visual_set="event-pyramid",
    visual_width=184,
    hidden=128,
    dropout=0.3,
    topk_divisor=2,
    input_norm="standardise",
    input_clip=6.0,
)

MINIATURE = DataConfig(dataset="miniature", root="outspike-data/miniature")
PED2 = DataConfig(dataset="ucsd_ped2", root="ucsd_ped2", split="weak-a")
#: Other divisions of the same clips, with labels of their own, so in stores of their own.
PED2_CROSS = DataConfig(dataset="ucsd_ped2", root="ucsd_ped2", split="official")
PED2_CROSS_STORE = StoreConfig(url="outspike-data/ped2-cross")
PED2_FULL = DataConfig(dataset="ucsd_ped2", root="ucsd_ped2", split="full-a")
PED2_FULL_STORE = StoreConfig(url="outspike-data/ped2-full")
FIGHTS = DataConfig(dataset="surv_fight", root="surv_fight")
FIGHTS_LONG = DataConfig(
    dataset="surv_fight_long", root="outspike-data/surv_fight_long", clips_root="surv_fight"
)

#: Rows of 16 frames overlap on the real sets: their clips are short, down to 20 frames.
PED2_GRID = SnippetGrid(stride=4)
FIGHTS_GRID = SnippetGrid(stride=8)


def _pyramids(grid: SnippetGrid) -> tuple[EncoderConfig, EncoderConfig, EncoderConfig]:
    """All weights-free encoders, the two pyramids on one grid."""
    return (
        dataclasses.replace(EVENT_PYRAMID, grid=grid),
        dataclasses.replace(FRAME_PYRAMID, grid=grid),
        FRAME_MOTION,
    )


# ------------------------------------------------------------------------------- extraction


def extract_miniature() -> ExtractConfig:
    """The generated miniature data set, with every weights-free encoder."""
    return ExtractConfig(data=MINIATURE, encoders=(EVENT_PYRAMID, FRAME_PYRAMID, FRAME_MOTION))


def extract_folder() -> ExtractConfig:
    """Your own recordings (``--data.root``), with the weights-free encoders."""
    return dataclasses.replace(
        extract_miniature(), data=DataConfig(dataset="folder", root="recordings")
    )


def extract_ped2() -> ExtractConfig:
    """UCSD Ped2 in the layout of train/, test/ and frame_labels.csv (``--data.root``)."""
    return ExtractConfig(data=PED2, encoders=_pyramids(PED2_GRID))


def extract_ped2_cross() -> ExtractConfig:
    """As ped2, divided for cross-fitting: training clips all normal, test clips all anomalous."""
    return dataclasses.replace(extract_ped2(), data=PED2_CROSS, store=PED2_CROSS_STORE)


def extract_ped2_full() -> ExtractConfig:
    """As ped2, with the frame labels of the anomalous training clips (split full-a)."""
    return dataclasses.replace(extract_ped2(), data=PED2_FULL, store=PED2_FULL_STORE)


def extract_ped2_generated() -> ExtractConfig:
    """Generated clips of GV-VAD as further training bags for Ped2 (``--data.root``)."""
    return dataclasses.replace(extract_ped2(), data=DataConfig(dataset="gv_vad", root="gv_vad"))


def extract_fights() -> ExtractConfig:
    """Surveillance Camera Fight: clips/ and clips.csv (``--data.root``)."""
    return ExtractConfig(data=FIGHTS, encoders=_pyramids(FIGHTS_GRID))


def extract_fights_long() -> ExtractConfig:
    """Long videos joined from the fight test clips (``--data.clips-root``)."""
    return dataclasses.replace(extract_fights(), data=FIGHTS_LONG)


def extract_ucf_crime() -> ExtractConfig:
    """UCF-Crime with CLIP on frames and on simulated events (``--encoders.0.weights``)."""
    clip = EncoderConfig(kind="clip", weights="openai/clip-vit-large-patch14", device="cuda")
    return ExtractConfig(
        data=DataConfig(dataset="ucf_crime", root="ucf_crime"),
        encoders=(clip, dataclasses.replace(clip, kind="event-clip")),
        gpus_per_actor=1.0,
    )


def extract_ucf_crime_i3d() -> ExtractConfig:
    """UCF-Crime with ten crops of I3D on RGB (``--encoders.0.weights``)."""
    i3d = EncoderConfig(kind="i3d-rgb", crops="ten", device="cuda")
    return dataclasses.replace(extract_ucf_crime(), encoders=(i3d,))


def extract_lad2000() -> ExtractConfig:
    """LAD2000 with I3D on RGB and flow as published (``--encoders.0.weights`` and flow-weights)."""
    i3d = EncoderConfig(
        kind="i3d-combine",
        grid=SnippetGrid(tail="drop"),
        crops="whole",
        scale="raw255",
        flow="xx",
        device="cuda",
    )
    return ExtractConfig(
        data=DataConfig(dataset="lad2000", root="lad2000"), encoders=(i3d,), gpus_per_actor=1.0
    )


EXTRACT_RECIPES: dict[str, Callable[[], ExtractConfig]] = {
    "miniature": extract_miniature,
    "folder": extract_folder,
    "ped2": extract_ped2,
    "ped2-cross": extract_ped2_cross,
    "ped2-full": extract_ped2_full,
    "ped2-generated": extract_ped2_generated,
    "fights": extract_fights,
    "fights-long": extract_fights_long,
    "ucf-crime": extract_ucf_crime,
    "ucf-crime-i3d": extract_ucf_crime_i3d,
    "lad2000": extract_lad2000,
}


# --------------------------------------------------------------------------------- training


def msf_miniature() -> TrainConfig:
    """The spiking detector on the miniature set; a minute on a laptop."""
    return TrainConfig(
        name="miniature",
        data=MINIATURE,
        detector=MsfConfig(
            width=184,
            hidden=46,
            dropout=0.5,
            mil_divisor=4,
            smooth_weight=0.0,
            input_norm="standardise",
            input_clip=6.0,
        ),
        encoders=(EVENT_PYRAMID,),
        window=WindowConfig(rule="all"),
        # Few bags and many columns: strong decay, in the gradient, is what generalises.
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=0.3),
        protocol="miniature",
        steps=300,
        checkpoint_every=100,
    )


def iefvad_miniature() -> TrainConfig:
    """The fusion of grey-level and event pyramids on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-ief-vad",
        detector=IEF_VAD_SMALL,
        encoders=(FRAME_PYRAMID, EVENT_PYRAMID),
        optim=OptimConfig(lr=3e-4),
    )


def gvvad_miniature() -> TrainConfig:
    """GV-VAD without captions on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-gv-vad",
        detector=GV_VAD_SMALL,
        steps=150,
    )


def msf_folder() -> TrainConfig:
    """The spiking detector on your own labelled recordings (``--data.root``)."""
    return dataclasses.replace(
        msf_miniature(),
        name="my-model",
        data=DataConfig(dataset="folder", root="recordings"),
        protocol="folder",
    )


def saa_miniature() -> TrainConfig:
    """Snippet anomalous attention on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-saa",
        detector=SAA_SMALL,
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-2),
    )


def aed_miniature() -> TrainConfig:
    """ConvLSTM frame regression on the frame labels of the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-aed",
        detector=AED_SMALL,
        window=WindowConfig(rule="crop", length=AED_SMALL.window),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-2),
    )


def floor_miniature() -> TrainConfig:
    """The motion floor on the miniature set."""
    return dataclasses.replace(
        msf_miniature(),
        name="miniature-floor",
        detector=MotionFloorConfig(),
        encoders=(FRAME_MOTION,),
    )


#: Settings of MSF that cross-validation inside the training splits of Ped2 and of the fight clips
#: chose: every snippet of a bag learns its label, every bag counts once (docs/results.md).
MSF_REAL = MsfConfig(
    width=184,
    hidden=46,
    dropout=0.3,
    mil_divisor=1,
    mil_unit="bag",
    smooth_weight=0.0,
    input_norm="standardise",
    input_clip=6.0,
)


def msf_ped2() -> TrainConfig:
    """The spiking detector on UCSD Ped2, split weak-a, from labels of whole clips."""
    return TrainConfig(
        name="ped2",
        data=PED2,
        detector=MSF_REAL,
        encoders=_pyramids(PED2_GRID)[:1],
        window=WindowConfig(rule="all"),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=3.0),
        protocol="ped2-weak-a",
        steps=200,
        bags_per_batch=8,
        checkpoint_every=200,
    )


def msf_fights() -> TrainConfig:
    """The spiking detector on Surveillance Camera Fight."""
    return TrainConfig(
        name="surv_fight",
        data=FIGHTS,
        detector=MSF_REAL,
        encoders=_pyramids(FIGHTS_GRID)[:1],
        window=WindowConfig(rule="all"),
        optim=OptimConfig(optimiser="adam", lr=3e-3, weight_decay=1e-3),
        protocol="surv-fight",
        steps=200,
        bags_per_batch=60,
        checkpoint_every=200,
    )


def ensemble_fights() -> TrainConfig:
    """Five of the spiking detector on Surveillance Camera Fight, their scores averaged."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-ensemble",
        detector=dataclasses.replace(MSF_REAL, members=5),
    )


def msf_fights_long() -> TrainConfig:
    """As fights, scoring long videos in windows of as many snippets as a training clip has."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-long",
        detector=dataclasses.replace(MSF_REAL, window=6),
        protocol="surv-fight-long",
    )


def ssls_ped2() -> TrainConfig:
    """As ped2, with four generated clips beside the eight bags of every step."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-ssls",
        ssls=SslsConfig(scale=0.5),
        bags_per_batch=12,
        synthetic_per_batch=4,
    )


def iefvad_ped2() -> TrainConfig:
    """The fusion of grey-level and event pyramids on UCSD Ped2."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-ief-vad",
        detector=IEF_VAD_LOOSE,
        encoders=_pyramids(PED2_GRID)[:2],
        optim=OptimConfig(lr=3e-4),
        steps=100,
        checkpoint_every=100,
    )


def saa_ped2() -> TrainConfig:
    """Snippet anomalous attention on UCSD Ped2, split weak-a."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-saa",
        detector=SAA_SMALL,
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-1),
    )


def aed_ped2() -> TrainConfig:
    """ConvLSTM frame regression on frame labels of UCSD Ped2 (``jobs/extract.py ped2-full``)."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-aed",
        data=PED2_FULL,
        store=PED2_FULL_STORE,
        detector=AED_SMALL,
        window=WindowConfig(rule="crop", length=AED_SMALL.window),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=1e-2),
        protocol="ped2-full-a",
        steps=400,
    )


def gvvad_ped2() -> TrainConfig:
    """GV-VAD without captions on UCSD Ped2."""
    return dataclasses.replace(
        msf_ped2(),
        name="ped2-gv-vad",
        detector=dataclasses.replace(GV_VAD_SMALL, topk_divisor=1),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=0.3),
    )


def iefvad_fights() -> TrainConfig:
    """The fusion of grey-level and event pyramids on the fight clips."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-ief-vad",
        detector=IEF_VAD_SMALL,
        encoders=_pyramids(FIGHTS_GRID)[:2],
        optim=OptimConfig(lr=3e-4),
    )


def floor_ped2() -> TrainConfig:
    """The motion floor on UCSD Ped2."""
    return dataclasses.replace(
        msf_ped2(), name="ped2-floor", detector=MotionFloorConfig(), encoders=(FRAME_MOTION,)
    )


def floor_fights() -> TrainConfig:
    """The motion floor on the fight clips."""
    return dataclasses.replace(
        msf_fights(),
        name="surv_fight-floor",
        detector=MotionFloorConfig(form="logistic"),
        encoders=(FRAME_MOTION,),
    )


def msf_ucf() -> TrainConfig:
    """MSF with the published hyperparameters on UCF-Crime-DVS Spikingformer features."""
    return TrainConfig(
        name="ucf-crime-dvs",
        data=DataConfig(dataset="ucf_crime_dvs", root="ucf_crime_dvs"),
        detector=MsfConfig(feature_set="spikingformer", width=256),
        window=WindowConfig(rule="msf_2025", length=16),
        optim=OptimConfig(optimiser="adam", lr=1e-4, weight_decay=5e-4),
        selection=SelectionConfig(split="holdout"),
        protocol="ucf-crime-dvs",
        steps=32_200,
        bags_per_batch=60,
        checkpoint_every=200,
    )


def iefvad_ucf() -> TrainConfig:
    """IEF-VAD with the published hyperparameters on UCF-Crime CLIP features."""
    return TrainConfig(
        name="ucf-crime",
        data=DataConfig(dataset="ucf_crime", root="ucf_crime"),
        detector=IefVadConfig(image_set="clip", event_set="event-clip"),
        encoders=extract_ucf_crime().encoders,
        window=WindowConfig(rule="mean_bins", length=256),
        optim=OptimConfig(lr=2e-5, weight_decay=1e-2, schedule="multistep", milestones=(500, 1000)),
        selection=SelectionConfig(split="holdout"),
        protocol="ucf-crime",
        steps=1250,
        bags_per_batch=128,
        checkpoint_every=125,
    )


def saa_ucf() -> TrainConfig:
    """SAA with the published hyperparameters on UCF-Crime I3D features."""
    return TrainConfig(
        name="ucf-crime-saa",
        data=DataConfig(dataset="ucf_crime", root="ucf_crime"),
        detector=SaaConfig(),
        encoders=(),
        window=WindowConfig(rule="mean_segments", length=320),
        optim=OptimConfig(optimiser="adam", lr=1e-4, weight_decay=5e-5),
        selection=SelectionConfig(split="holdout"),
        protocol="ucf-crime",
        steps=60_000,
        bags_per_batch=128,
        checkpoint_every=500,
        seed=1234,
    )


def saa_xd() -> TrainConfig:
    """SAA with the published hyperparameters on XD-Violence, I3D and VGGish features."""
    return dataclasses.replace(
        saa_ucf(),
        name="xd-violence-saa",
        data=DataConfig(dataset="xd_violence", root="xd_violence"),
        detector=SaaConfig(audio_set="vggish", audio_fusion="temporal_conv"),
        protocol="xd-violence",
    )


def aed_lad2000() -> TrainConfig:
    """AED_T with the published hyperparameters on LAD2000, RGB and flow features."""
    return TrainConfig(
        name="lad2000-aed",
        data=DataConfig(dataset="lad2000", root="lad2000"),
        detector=AedConfig(feature_set="i3d-combine", width=2048, classes=LAD2000_CLASSES),
        encoders=(),
        window=WindowConfig(rule="crop", length=5),
        optim=OptimConfig(optimiser="adam", lr=1e-4, weight_decay=5e-4),
        protocol="lad2000",
        steps=12_000,
        bags_per_batch=60,
        checkpoint_every=200,
        seed=1,
    )


def aed_ped2_i3d() -> TrainConfig:
    """AED_T with the hyperparameters published for Ped2, on this package's draw of the split."""
    return dataclasses.replace(
        aed_lad2000(),
        name="ped2-aed-i3d",
        data=dataclasses.replace(PED2, split="lad-reseeded"),
        detector=AedConfig(feature_set="i3d-combine", width=2048, window=10),
        window=WindowConfig(rule="crop", length=10),
        optim=OptimConfig(optimiser="adam", lr=5e-5, weight_decay=5e-4),
        protocol="ped2-lad-reseeded",
        steps=4_200,
        bags_per_batch=8,
    )


def gvvad_ucf() -> TrainConfig:
    """GV-VAD with the published hyperparameters on UCF-Crime: ten crops of CLIP and captions.

    Captions are imported into the store as feature set ``captions``, and anomaly prompts are named
    by ``--detector.prompt-bank``. Generated clips stand for a sixth of every batch, as in ucfg2.
    """
    return TrainConfig(
        name="ucf-crime-gv-vad",
        data=DataConfig(dataset="ucf_crime", root="ucf_crime"),
        detector=GvVadConfig(),
        encoders=(dataclasses.replace(extract_ucf_crime().encoders[0], crops="ten"),),
        window=WindowConfig(rule="mean_segments", length=64),
        optim=OptimConfig(optimiser="adam", lr=1e-3, weight_decay=5e-3),
        ssls=SslsConfig(policy="learned"),
        selection=SelectionConfig(split="holdout"),
        protocol="ucf-crime",
        steps=1000,
        bags_per_batch=64,
        synthetic_per_batch=10,
        checkpoint_every=50,
    )


TRAIN_RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "msf-miniature": msf_miniature,
    "msf-folder": msf_folder,
    "iefvad-miniature": iefvad_miniature,
    "gvvad-miniature": gvvad_miniature,
    "saa-miniature": saa_miniature,
    "aed-miniature": aed_miniature,
    "floor-miniature": floor_miniature,
    "ped2": msf_ped2,
    "ped2-ssls": ssls_ped2,
    "iefvad-ped2": iefvad_ped2,
    "gvvad-ped2": gvvad_ped2,
    "saa-ped2": saa_ped2,
    "aed-ped2": aed_ped2,
    "floor-ped2": floor_ped2,
    "fights": msf_fights,
    "fights-ensemble": ensemble_fights,
    "fights-long": msf_fights_long,
    "iefvad-fights": iefvad_fights,
    "floor-fights": floor_fights,
    "msf-ucf": msf_ucf,
    "iefvad-ucf": iefvad_ucf,
    "gvvad-ucf": gvvad_ucf,
    "saa-ucf": saa_ucf,
    "saa-xd": saa_xd,
    "aed-lad2000": aed_lad2000,
    "aed-ped2-i3d": aed_ped2_i3d,
}


# ----------------------------------------------------------------------------------- search


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


# ---------------------------------------------------------------------------- cross-fitting


def crossfit_miniature() -> CrossfitConfig:
    """The spiking detector on all scenes of the miniature set."""
    return CrossfitConfig(train=msf_miniature(), protocol="miniature-cross", num_folds=4)


def crossfit_folder() -> CrossfitConfig:
    """The spiking detector on all your own labelled recordings (``--train.data.root``)."""
    return CrossfitConfig(train=msf_folder(), protocol="folder-cross")


def crossfit_ped2() -> CrossfitConfig:
    """The spiking detector on all labelled test clips of UCSD Ped2."""
    return _crossfit_ped2(msf_ped2())


def crossfit_iefvad_ped2() -> CrossfitConfig:
    """The fusion of two pyramids on all labelled test clips of UCSD Ped2."""
    return _crossfit_ped2(iefvad_ped2())


def _crossfit_ped2(train: TrainConfig) -> CrossfitConfig:
    train = dataclasses.replace(train, data=PED2_CROSS, store=PED2_CROSS_STORE)
    return CrossfitConfig(train=train, protocol="ped2-cross", num_folds=4)


def crossfit_fights() -> CrossfitConfig:
    """The spiking detector on all clips of Surveillance Camera Fight."""
    return CrossfitConfig(train=msf_fights())


def crossfit_iefvad_fights() -> CrossfitConfig:
    """The fusion of two pyramids on all clips of Surveillance Camera Fight."""
    return CrossfitConfig(train=iefvad_fights())


CROSSFIT_RECIPES: dict[str, Callable[[], CrossfitConfig]] = {
    "miniature": crossfit_miniature,
    "folder": crossfit_folder,
    "ped2": crossfit_ped2,
    "iefvad-ped2": crossfit_iefvad_ped2,
    "fights": crossfit_fights,
    "iefvad-fights": crossfit_iefvad_fights,
}


# ------------------------------------------------------------------------------- evaluating


def evaluate_miniature() -> EvaluateConfig:
    """The promoted miniature model under its own protocol, against the motion floor."""
    return EvaluateConfig()


EVALUATE_RECIPES: dict[str, Callable[[], EvaluateConfig]] = {"miniature": evaluate_miniature}


# ------------------------------------------------------------------------------- predicting


def predict_miniature() -> PredictConfig:
    """The promoted miniature model on recordings that nothing was trained on."""
    return PredictConfig()


PREDICT_RECIPES: dict[str, Callable[[], PredictConfig]] = {"miniature": predict_miniature}
