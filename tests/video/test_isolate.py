"""Promises of outspike.video.isolate: whatever a container does, the caller lives."""

import os
import signal
import sys
import threading
from contextlib import suppress
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from outspike.errors import ConfigError, MediaError
from outspike.video import isolate
from outspike.video.decode import decode
from outspike.video.isolate import IsolatedVideo, decode_isolated
from outspike.video.probe import probe
from outspike.video.write import write_mp4


def test_frames_equal_those_decoded_in_process(noisy_video):
    """Isolation changes no byte, no chunk boundary and no fact."""
    inside = list(decode(noisy_video, chunk_frames=7))
    outside = list(decode_isolated(noisy_video, chunk_frames=7))
    assert [c.start for c in inside] == [c.start for c in outside]
    for ours, theirs in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(ours.frames, theirs.frames)
    with IsolatedVideo(noisy_video, timeout_s=60, memory_mb=1000) as video:
        assert video.info == probe(noisy_video)


def test_bad_inputs_give_the_same_reason(bad_input):
    path, reason = bad_input
    with pytest.raises(MediaError) as caught:
        list(decode_isolated(path))
    assert caught.value.reason == reason
    assert path in str(caught.value)


def test_a_hanging_decoder_is_stopped(tmp_path):
    """A named pipe that nobody writes blocks the child for ever; the limit ends it."""
    path = tmp_path / "hangs.mp4"
    os.mkfifo(path)
    with pytest.raises(MediaError, match=r"longer than 0.8 s") as caught:
        list(decode_isolated(str(path), timeout_s=0.8))
    assert caught.value.reason == "timeout"


def test_waiting_for_the_consumer_is_not_charged_to_the_decoder(noisy_video, monkeypatch):
    """A slow encoder does not make a healthy recording time out."""
    clock = [0.0]
    monkeypatch.setattr(isolate, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    num_frames = 0
    for chunk in decode_isolated(noisy_video, chunk_frames=8, timeout_s=300):
        clock[0] += 100
        num_frames += len(chunk.frames)
    assert (num_frames, clock[0]) == (40, 500)


def test_a_decoder_that_needs_too_much_memory_is_stopped(tmp_path):
    """The limit is on what decoding adds; exceeding it is told as such."""
    path = str(tmp_path / "large.mp4")
    large = np.zeros((1080, 1920, 3), dtype=np.uint8)
    write_mp4(path, [large] * 3, fps=Fraction(25), preset="ultrafast")
    with pytest.raises(MediaError) as caught:
        list(decode_isolated(path, memory_mb=16))
    assert caught.value.reason == "memory"


def test_a_crash_is_an_error_not_a_death(noisy_video):
    """A child that dies in the middle leaves the caller with one clear error."""
    with IsolatedVideo(noisy_video, timeout_s=60, memory_mb=1000) as video:
        chunks = video.chunks(4)
        assert next(chunks).start == 0
        os.kill(video.pid, signal.SIGSEGV)
        with pytest.raises(MediaError, match="signal 11") as caught:
            list(chunks)
    assert caught.value.reason == "crashed"


def test_leaving_early_ends_the_child(noisy_video):
    """A consumer that stops after one chunk leaves no process and no open pipe behind."""
    before = set(os.listdir("/proc/self/fd"))
    with IsolatedVideo(noisy_video, timeout_s=60, memory_mb=1000) as video:
        next(video.chunks(2))
        pid = video.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert set(os.listdir("/proc/self/fd")) <= before


def _decode_whole(url, **limits):
    """Decode all of a video and tell which process did it."""
    with IsolatedVideo(url, **({"timeout_s": 60, "memory_mb": 1000} | limits)) as video:
        return video.pid, sum(len(chunk.frames) for chunk in video.chunks())


def _page_faults(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[7])


def test_a_kept_child_writes_into_memory_it_has_touched_before(noisy_video, tmp_path):
    """Decoding one more video costs the system hardly a page, whichever chunks were let go of."""
    path = str(tmp_path / "vga.mp4")
    frames = np.random.default_rng(0).integers(0, 256, (60, 480, 640, 3), dtype=np.uint8)
    write_mp4(path, frames, fps=Fraction(25), preset="ultrafast")
    pid, _ = _decode_whole(path)
    faults = _page_faults(pid)
    assert _decode_whole(path) == (pid, 60)
    assert _page_faults(pid) - faults < 60 * 480 * 640 * 3 / 4096 / 4, "a quarter of its pages"


def test_memory_in_which_a_chunk_still_lies_is_not_written_to_again(noisy_video, tmp_path):
    """The next video of the same child gets memory of its own."""
    with IsolatedVideo(noisy_video, timeout_s=60, memory_mb=1000) as video:
        pid, chunks = video.pid, list(video.chunks(4))
    copies = [chunk.frames.copy() for chunk in chunks]
    upside_down = [chunk.frames[::-1] for chunk in chunks]
    chunks.clear()
    path = str(tmp_path / "black.mp4")
    write_mp4(path, [np.zeros_like(copies[0][0])] * 40, fps=Fraction(25))
    with IsolatedVideo(path, timeout_s=60, memory_mb=1000) as video:
        assert video.pid == pid
        assert not any(chunk.frames.any() for chunk in video.chunks(4))
    for view, copy in zip(upside_down, copies, strict=True):
        np.testing.assert_array_equal(view, copy[::-1])


def test_a_child_that_did_well_is_used_again(noisy_video):
    """Starting an interpreter costs as much as decoding a short recording."""
    assert len({_decode_whole(noisy_video) for _ in range(3)}) == 1


def test_a_child_is_not_used_again_after_a_fault(noisy_video, tmp_path):
    """Whatever a bad file did to the decoder, the next recording does not see it."""
    text = tmp_path / "notes.mp4"
    text.write_text("these are minutes of a meeting")
    pid, _ = _decode_whole(noisy_video)
    with pytest.raises(MediaError):
        _decode_whole(str(text))
    again, num_frames = _decode_whole(noisy_video)
    assert (again != pid, num_frames) == (True, 40)


def test_a_child_with_little_room_left_is_not_used_again(tmp_path):
    """Memory that one recording leaves mapped is never charged to the next."""
    path = str(tmp_path / "large.mp4")
    large = np.zeros((1080, 1920, 3), dtype=np.uint8)
    write_mp4(path, [large] * 3, fps=Fraction(25), preset="ultrafast")
    for memory_mb in range(20, 400, 20):
        with suppress(MediaError):
            pid, _ = _decode_whole(path, memory_mb=memory_mb)
            break
    assert _decode_whole(path)[0] != pid


def test_a_kept_child_that_was_killed_is_replaced(noisy_video):
    """The system may take an idle process at any time."""
    pid, _ = _decode_whole(noisy_video)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # gone, and not yet collected
    assert _decode_whole(noisy_video)[1] == 40


def test_chunks_may_be_kept_or_let_go_of_in_any_order(noisy_video):
    """A chunk never changes once it was given out, whatever the child decodes after it."""
    expected = [chunk.frames for chunk in decode(noisy_video, chunk_frames=3)]
    kept = [chunk.frames for chunk in decode_isolated(noisy_video, chunk_frames=3)]
    odd = [
        c.frames[1:] for i, c in enumerate(decode_isolated(noisy_video, chunk_frames=3)) if i % 2
    ]
    for ours, theirs in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(odd, expected[1::2], strict=True):
        np.testing.assert_array_equal(ours, theirs[1:])


def test_chunks_outlive_their_video_and_do_not_disturb_the_next(noisy_video):
    """Memory is that of one video: letting go of it late tells the next one nothing."""
    with IsolatedVideo(noisy_video, timeout_s=60, memory_mb=1000) as video:
        late = [chunk for chunk, _ in zip(video.chunks(4), range(2), strict=False)]
        copies = [chunk.frames.copy() for chunk in late]
    first = list(decode_isolated(noisy_video, chunk_frames=4))
    for chunk, copy in zip(late, copies, strict=True):
        np.testing.assert_array_equal(chunk.frames, copy)
    late.clear()
    for ours, theirs in zip(first, decode_isolated(noisy_video, chunk_frames=4), strict=True):
        np.testing.assert_array_equal(ours.frames, theirs.frames)


def test_a_child_whose_files_the_collector_closed_is_not_used_again(noisy_video):
    """A reader dropped in a cycle may let go of a child that is half finalised."""
    video = IsolatedVideo(noisy_video, timeout_s=60, memory_mb=1024)
    assert sum(len(chunk.frames) for chunk in video.chunks()) == 40
    child = video._required()
    video.close()
    child.errors.close()
    assert _decode_whole(noisy_video)[1] == 40


def test_another_folder_or_setting_takes_another_child(noisy_video, tmp_path, monkeypatch):
    """Relative addresses and credentials mean what they mean now, not when a child began."""
    pids = [_decode_whole(noisy_video)[0]]
    monkeypatch.setenv("AWS_REGION", "elsewhere")
    pids.append(_decode_whole(noisy_video)[0])
    monkeypatch.chdir(tmp_path)
    pids.append(_decode_whole(noisy_video)[0])
    assert len(set(pids)) == 3


def test_every_video_gets_processor_time_of_its_own(noisy_video):
    """The limit is that of the recording, whatever the process was asked for before."""
    pids, limits = set(), []
    for timeout_s in (300, 20):
        with IsolatedVideo(noisy_video, timeout_s=timeout_s, memory_mb=1000) as video:
            assert video.info.fps == 25, "limits are set once it has begun"
            with open(f"/proc/{video.pid}/limits") as file:
                soft = next(line.split()[3] for line in file if line.startswith("Max cpu time"))
            limits.append(int(soft))
            pids.add(video.pid)
            list(video.chunks())
    assert len(pids) == 1
    assert limits[0] > 300 > 60 > limits[1] > 20


def test_threads_can_decode_at_once(noisy_video):
    """Several recordings are decoded side by side from one process."""
    counts = []

    def work():
        counts.append(sum(len(c.frames) for c in decode_isolated(noisy_video)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [40, 40, 40]


def test_the_child_finds_the_package_without_help_from_the_environment(noisy_video, monkeypatch):
    """Nodes that got the package by other means than PYTHONPATH need no setting for the child."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert sum(len(c.frames) for c in decode_isolated(noisy_video)) == 40


def test_the_child_imports_nothing_heavy():
    """Start-up stays in the tenths of a second: no torch, no ray, no storage libraries."""
    code = (
        "import sys, outspike.video.worker; "
        "print([m for m in ('torch', 'ray', 'fsspec', 'numba', 'scipy') if m in sys.modules])"
    )
    read, write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code],
        os.environ | {"PYTHONPATH": isolate._SOURCE_ROOT},
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
    )
    os.close(write)
    with os.fdopen(read) as said:
        assert said.read().strip() == "[]"
    assert os.waitpid(pid, 0)[1] == 0


def test_limits_must_be_positive(noisy_video):
    with pytest.raises(ConfigError, match="timeout_s=0"):
        next(decode_isolated(noisy_video, timeout_s=0))
