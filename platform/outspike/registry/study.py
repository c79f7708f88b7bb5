"""``jobs/evaluate.py --study perturbation``: a registered IEF-VAD model under partial loss."""

import tempfile
from collections import defaultdict
from pathlib import Path

from outspike import urls
from outspike.config import EvaluateConfig
from outspike.detectors.ief_vad.detector import MODALITIES, IefVad
from outspike.errors import ConfigError
from outspike.evaluate.perturbation import StudyVideo, run_study
from outspike.evaluate.policies import one_crop
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.stored import bundle_bags
from outspike.evaluate.study import Curves, curves, study_model, study_video
from outspike.evaluate.study_report import curve_plots, study_plot, tables
from outspike.registry.evaluation import load_model


def perturbation_study(config: EvaluateConfig) -> list[tuple[str, object]]:
    """Run the study on a model's test recordings, write its files, and say what came out.

    Raises:
        ConfigError: the model is no single IEF-VAD network.
        AlignmentError: recordings without frame labels, or with more crops than the protocol
            scores.
        RegistryError, StoreError, DatasetError: as of an evaluation.
    """
    with tempfile.TemporaryDirectory(prefix="outspike-study-") as folder:
        address, bundle = load_model(config, config.model, Path(folder) / "model")
    detector = bundle.detector
    if not isinstance(detector, IefVad):
        raise ConfigError(
            f"{address}: a {bundle.detector.config.kind!r} model with "
            f"{getattr(detector.config, 'members', 1)} member(s); the perturbation study is of two "
            "fused streams, so of a single ief_vad network."
        )
    detector.eval()
    protocol = get_protocol(config.protocol or bundle.protocol)
    videos, classes = [], defaultdict[str, list[tuple[StudyVideo, Curves]]](list)
    for bag in bundle_bags(bundle, protocol, bundle):
        video = study_video(detector, one_crop(bag, protocol))
        videos.append(video)
        kind = "normal" if bag.label == 0 else bag.class_name or "anomalous"
        classes[kind].append((video, curves(detector, video)))
    results = run_study(videos, study_model(detector), modalities=MODALITIES, seed=config.seed)
    files = tables(results, MODALITIES) | {"perturbation.png": study_plot(results, MODALITIES)}
    files |= dict(curve_plots(classes))
    for name, data in files.items():
        urls.write_bytes(urls.join(config.out, name), data)
    rows: list[tuple[str, object]] = [
        ("model", address),
        ("protocol", protocol.label),
        ("recordings", len(videos)),
    ]
    for case in results:
        lost = "clean" if case.modality is None else f"{case.fraction:.0%} of {case.modality} lost"
        auc = "not defined" if case.auc is None else f"{case.auc:.3f}"
        rows.append((lost, f"AUC {auc}, Brier score {case.brier:.4f}, KL {case.kl:.4f}"))
    return [*rows, ("files", f"{len(files)} in {config.out}")]
