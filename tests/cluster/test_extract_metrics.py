"""Prometheus finds the counters of an extraction at the metrics port of a real Ray."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from outspike.synth.miniature import generate

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_JOB = """
import sys, time, urllib.request
import ray
from outspike.config import DataConfig, ExtractConfig, StoreConfig
from outspike.extract.run import extract

root, url = sys.argv[1:]
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
data = DataConfig(dataset="folder", root=root)
extract(ExtractConfig(data=data, store=StoreConfig(url=url)))
port = ray.nodes()[0]["MetricsExportPort"]
until = time.monotonic() + 90

def total(text, name):
    lines = [line for line in text.splitlines() if line.startswith("ray_outspike_extract_" + name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

while time.monotonic() < until:  # processes report to their node every few seconds
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    told = all(total(text, name) for name in ("quarantined", "pixels", "stage_seconds"))
    if told and total(text, "recordings") >= 4 and 'stage="write"' in text:
        break
    time.sleep(1)
print(chr(10).join(line for line in text.splitlines() if "outspike_extract" in line))
"""

_LINE = re.compile(r"^ray_outspike_extract_(\w+?)(?:_total)?\{(.*)\} (\S+)$", re.MULTILINE)


def test_the_metrics_port_serves_queue_rates_and_quarantine(
    repository: Path, tmp_path: Path
) -> None:
    """Counters of the driver and of the actors, by stage and reason."""
    made = generate(tmp_path / "made", train=2, test=2, events=0, unseen=0)
    videos = Path(made.root, "videos")
    (videos / "notes.mp4").write_text("minutes of a meeting")
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", _JOB, str(videos), str(tmp_path / "store")],
        env=own | {"PYTHONPATH": str(repository / "platform"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = {}
    for name, tags, value in _LINE.findall(done.stdout):
        kept = sorted(re.findall(r'((?:stage|reason)="\w+")', tags))
        found[" ".join([name, *kept])] = found.get(" ".join([name, *kept]), 0) + float(value)
    assert found["recordings"] == 4
    assert found["queue"] == 0
    assert found['quarantined reason="not_media" stage="decode"'] == 1
    assert found["pixels"] > 0
    assert found["footage_seconds"] > 0
    for stage in ("decode", "encode", "write"):
        assert found[f'stage_seconds stage="{stage}"'] > 0, done.stdout
