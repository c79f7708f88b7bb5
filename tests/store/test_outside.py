"""Reading a store without this package, exactly as docs/store.md says."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from deltalake import DeltaTable

from outspike.store.delta import optimize

DOCS = Path(__file__).parents[2] / "docs" / "store.md"


def test_plain_zarr_and_deltalake_are_enough(store, kit):
    """Catalog through deltalake, features through zarr: the same rows our reader gives."""
    spec = kit.spec()
    video = kit.video("v", 16 * 90, spec)
    store.commit(kit.write(store, spec, [kit.video("w", 16 * 33, spec), video], split_bytes=1500))
    rows = pa.table(DeltaTable(f"{store.url}/catalog").scan()).to_pylist()
    mine = sorted(
        (row for row in rows if row["video_id"] == "v"), key=lambda row: row["snippet_start"]
    )
    assert len(mine) > 1
    parts = []
    for row in mine:
        group = zarr.open_group(
            f"{store.url}/features/{row['feature_set']}/{row['segment']}", mode="r"
        )
        parts.append(group["features"][row["row_start"] : row["row_stop"]])
    assert np.array_equal(np.concatenate(parts), video.features.astype(np.float16))


def test_the_catalog_is_plain_parquet(store, kit):
    """Any Parquet reader opens the files the log names."""
    spec = kit.spec()
    store.commit(kit.write(store, spec, [kit.video("v", 40, spec)]))
    (path,) = DeltaTable(f"{store.url}/catalog").file_uris()
    assert pq.read_table(path.removeprefix("file://"))["video_id"].to_pylist() == ["v"]


def test_the_program_in_the_documentation_runs(store, kit, tmp_path):
    """DuckDB and zarr alone: the block in docs/store.md, word for word, in a process without this
    package; after commits, a superseded attempt, a deletion and a compaction of the table.
    """
    spec = kit.spec()
    video = kit.video("v", 16 * 90, spec)
    store.commit(kit.write(store, spec, [kit.video("w", 16 * 33, spec), video], split_bytes=1500))
    store.commit(kit.write(store, spec, [video], split_bytes=1500))
    other = store.commit(kit.write(store, spec, [kit.video("gone", 64, spec)]))
    assert other == store.version
    store.forget([r["attempt"] for r in store.catalog().to_pylist() if r["video_id"] == "gone"])
    optimize(store.url, "catalog")
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    program += f"\nnp.save({str(tmp_path / 'out.npy')!r}, features)\n"
    program += "import sys; assert not {'outspike', 'deltalake'} & set(sys.modules)\n"
    (tmp_path / "read.py").write_text(program)
    arguments = [
        sys.executable,
        "-W",
        "error::UserWarning",
        "read.py",
        store.url,
        "tiny",
        "ds",
        "v",
    ]
    subprocess.run(arguments, check=True, cwd=tmp_path, timeout=60)
    assert np.array_equal(np.load(tmp_path / "out.npy"), video.features.astype(np.float16))
