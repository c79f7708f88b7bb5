"""Damaged files end in a MediaError or in sound events: a small share of what the driver runs.

``fuzz_codecs.py`` beside this file is the driver. What it found lies in ``regressions/``, named
after the codec and what was wrong with us.
"""

from pathlib import Path

import fuzz_codecs
import pytest
from event_samples import SIZE, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.events import reader

FOUND = sorted((Path(__file__).parent / "regressions").iterdir())
CODECS = list(samples())
MODES = ("raise", "resync")


@pytest.fixture(scope="module", autouse=True)
def _files_from_memory():
    """The driver puts its own bytes behind every address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "open_url", reader.open_url)
        yield


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60)
@given(number=st.integers(0, 1 << 40))
def test_a_damaged_file_is_refused_or_read_soundly(codec: str, number: int) -> None:
    """Mutations of every sample: bits, lengths, cuts, insertions, splices."""
    fuzz_codecs.check(*fuzz_codecs.make_input(codec, seed=1, number=number))


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=25)
@given(
    keep=st.integers(0, 64),
    junk=st.binary(max_size=300),
    on_error=st.sampled_from(MODES),
    sized=st.booleans(),
)
def test_anything_may_follow_a_good_beginning(
    codec: str, keep: int, junk: bytes, on_error: str, sized: bool
) -> None:
    """Shrinks to the bytes that matter, which seeded mutations cannot."""
    data = samples_of(codec)[:keep] + junk
    fuzz_codecs.check(data, SIZE if sized else None, on_error, 9)


def samples_of(codec: str) -> bytes:
    return fuzz_codecs.samples_of(codec)[0].data


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize("num_events", [9, 1 << 20])
def test_what_was_found_stays_mended(path: Path, on_error: str, num_events: int) -> None:
    for size in (None, SIZE):
        fuzz_codecs.check(path.read_bytes(), size, on_error, num_events)


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_many_damaged_files_in_processes_of_their_own(codec: str, tmp_path: Path) -> None:
    """Crashes, hangs and wild allocations count as failures too."""
    assert fuzz_codecs.run_plain(codec, 4000, seed=2, keep=tmp_path) == 0
