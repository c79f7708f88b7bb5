"""Commands that extract features, and look at what could not be extracted.

Like those in :mod:`outspike.cli`: parse, call one function, answer with an exit code.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

import tyro

from outspike import app
from outspike.config import ExtractConfig

Arguments = Sequence[str] | None
Url = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
Json = Annotated[bool, tyro.conf.arg(name="json")]


def extract(arguments: Arguments = None, prog: str = "jobs/extract.py") -> int:
    """Extract features of recordings into a store, skipping what it already holds."""
    from outspike.recipes import EXTRACT_RECIPES

    config = app.choose_config(
        EXTRACT_RECIPES,
        default="miniature",
        prog=prog,
        description=(
            "Decode recordings once and write their features into a zarr store. What the store "
            "already holds is skipped, so the same command goes on after an interruption.\n\n"
            "examples:\n"
            f"  {prog}                                  the miniature data set\n"
            f"  {prog} folder --data.root my-videos     your own recordings\n"
            f"  {prog} ped2 --data.root s3://bucket/ped2 --store.url s3://bucket/store"
        ),
        arguments=arguments,
    )
    return _run(config)


def extract_retry(arguments: Arguments = None, prog: str = "outspike extract retry") -> int:
    """Try again what earlier extractions into the store have quarantined, and nothing else."""
    from outspike.recipes import EXTRACT_RECIPES

    config = app.choose_config(
        EXTRACT_RECIPES,
        default="miniature",
        prog=prog,
        description=(
            "List the recordings in the store's ledger whose failure still stands, and extract "
            "them again with the same recipe and options as before: after a file was repaired, a "
            "decoder updated, or with more time and memory.\n\n"
            "examples:\n"
            f"  {prog} folder --data.root my-videos --store.url my-store\n"
            f"  {prog} folder --data.root my-videos --decode-timeout-s 7200 --decode-memory-mb 8192"
        ),
        arguments=arguments,
    )
    from outspike.extract import quarantine

    print(quarantine.text(quarantine.standing(config.store.url)))
    return _run(dataclasses.replace(config, retry_quarantined=True, only_quarantined=True))


def extract_ledger(url: Url, everything: bool = False, as_json: Json = False) -> int:
    """List the recordings that extraction into a store has quarantined, and why.

    One line a recording whose last failure still stands: no feature set asked of it came into the
    store since.

    example: outspike extract ledger outspike-data/store

    Args:
        url: the store.
        everything: every failure ever recorded, also of what went well later.
        as_json: print JSON, one object a failure, instead of lines.
    """
    from outspike.extract import quarantine
    from outspike.extract.ledger import Ledger
    from outspike.store.store import FeatureStore

    store = FeatureStore.open(url)
    rows = Ledger(store.url).rows() if everything else quarantine.standing(store.url)
    print(json.dumps(rows, indent=1) if as_json else quarantine.text(rows))
    return app.DONE


def _run(config: ExtractConfig) -> int:
    from outspike.extract import run  # after the arguments: it loads torch and Ray
    from outspike.extract.prepare import prepare

    if config.dry_run:
        print(run.describe(config))
        return app.DONE
    prepare(config.data)
    result = run.extract(config)
    print(result.table())
    return app.QUARANTINED if result.bad_share > config.max_bad_share else app.DONE
