"""The commands that import: exit codes, one-line refusals, tables."""

import numpy as np
import pytest

from outspike import app
from outspike.detectors.bank_import import import_bank
from outspike.detectors.gv_vad.prompts import read_bank
from outspike.errors import CheckpointError, ConfigError
from outspike.store.npy_layouts import save_array

IMPORT = ("--layout", "rows", "--name", "f", "--origin", "made up")


def test_an_import_with_refused_recordings_exits_with_3(run_cli, tmp_path):
    """What could be taken is there, what could not is named with its reason."""
    save_array(f"{tmp_path}/in/good.npy", np.ones((3, 4), dtype=np.float32))
    save_array(f"{tmp_path}/in/bad.npy", np.full((3, 4), np.nan, dtype=np.float32))
    url = str(tmp_path / "store")
    code, out, _ = run_cli("store", "import", url, str(tmp_path / "in"), *IMPORT)
    assert code == app.QUARANTINED
    assert "refused folder/bad" in out
    assert "NaN" in out
    assert "1 recordings" in run_cli("store", "ls", url)[1]
    code, out, _ = run_cli("store", "import", url, str(tmp_path / "in"), *IMPORT, "--replace-nan")
    assert code == app.DONE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store", "import", "s", "nowhere", *IMPORT, "--fps", "fast"], "expected a number"),
        (["store", "import", "s", "nowhere", *IMPORT, "--text-slack", "2"], "clip-emb"),
        (["datasets", "import-labels", "x.pickle"], "where the labels go"),
        (["datasets", "import-labels", "x.npz", "--what", "event-frames"], "needs --out"),
        (
            ["datasets", "import-labels", "x.npy", "--what", "text", "--out", "b", "--order", "o"],
            "--what labels is set",
        ),
        (["import-checkpoint", "msf", "x.pkl", "--out", "m"], "three things"),
    ],
)
def test_contradicting_options_exit_with_2(arguments, message, run_cli):
    """One line that says what to give."""
    code, out, err = run_cli(*arguments)
    assert (code, out) == (app.BAD_USAGE, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_files_that_are_not_there_exit_with_1(run_cli, tmp_path):
    """One line, no traceback, for every command."""
    absent = str(tmp_path / "absent")
    for arguments in (
        ["store", "import", str(tmp_path / "s"), absent, *IMPORT],
        ["store", "export", absent, "f", str(tmp_path / "o"), "--layout", "rows"],
        ["datasets", "import-labels", f"{absent}.pickle", "--out", str(tmp_path / "l.csv")],
        ["import-checkpoint", "msf", f"{absent}.pkl"],
    ):
        code, out, err = run_cli(*arguments)
        assert (code, out) == (app.FAILED, "")
        assert len(err.splitlines()) == 1
        assert "absent" in err


def test_text_embeddings_become_a_bank_that_says_where_they_come_from(run_cli, tmp_path):
    """Rows, phrases and origin come back; foreign arrays do not pass."""
    rows = np.random.default_rng(0).random((3, 8)).astype(np.float32)
    np.save(tmp_path / "bank.npy", rows)
    (tmp_path / "phrases.txt").write_text("a fight\na fall\nfire\n")
    target = str(tmp_path / "bank.safetensors")
    options = ("--what", "text", "--origin", "SimCSE", "--out", target)
    phrases = ("--phrases", str(tmp_path / "phrases.txt"))
    code, out, _ = run_cli(
        "datasets", "import-labels", str(tmp_path / "bank.npy"), *options, *phrases
    )
    assert code == app.DONE
    assert "3x8" in out
    bank = read_bank(target, 8)
    assert np.array_equal(bank.rows.numpy(), rows)
    assert (bank.phrases, bank.encoder) == (("a fight", "a fall", "fire"), "SimCSE")
    with pytest.raises(ConfigError, match="what made the embeddings"):
        import_bank(str(tmp_path / "bank.npy"), target, encoder="")
    np.save(tmp_path / "flat.npy", np.ones(4, dtype=np.float32))
    with pytest.raises(CheckpointError, match=r"expected text embeddings \[N, E\]"):
        import_bank(str(tmp_path / "flat.npy"), target, encoder="x")


@pytest.mark.media
@pytest.mark.parametrize(("name", "classes"), [("ucf", 14), ("sh", 14), ("xd", 7)])
def test_real_text_embeddings_are_taken(media, tmp_path, name, classes):
    """Those of PEL4VAD: one row a class, 512 wide, not unit length."""
    source = str(media / "features" / "clip_text" / f"{name}_prompt.npy")
    bank = import_bank(source, str(tmp_path / "bank.safetensors"), encoder="CLIP text (PEL4VAD)")
    assert tuple(bank.rows.shape) == (classes, 512)
    assert 8 < bank.rows.norm(dim=1).mean() < 14
