"""Commands that look into a feature store and look after it.

Like those in :mod:`outspike.cli`: parse, call one function, answer with an exit code.
"""

from typing import Annotated, Literal

import tyro

from outspike.errors import ConfigError

Url = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
Run = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_ID")]


def store(
    action: Annotated[Literal["ls", "show", "digest"], tyro.conf.Positional],
    url: Url,
    feature_set: Name = "",
    version: int | None = None,
) -> int:
    """Look into a feature store.

    examples: outspike store ls outspike-data/store; outspike store show URL event-pyramid

    Commands of their own, each with --help: outspike store fsck, gc, compact, lineage, unpin,
    import, export.

    Args:
        action: ls lists feature sets, show describes one of them, digest prints the
            order-independent digest of all features.
        url: the store, a local folder or s3:// address.
        feature_set: of show: name, address or beginning of the fingerprint.
        version: version of the catalog; the newest where it is left out.
    """
    if bool(feature_set) != (action == "show"):
        raise ConfigError(
            "outspike store show URL FEATURE_SET describes one feature set; ls and digest take the "
            "store alone."
        )
    from outspike.store import cli as tools

    if action == "show":
        return _say(tools.show(url, feature_set, version=version))
    action_of = {"ls": tools.ls, "digest": tools.digest}
    return _say(action_of[action](url, version=version))


def store_fsck(
    url: Url,
    feature_set: str = "",
    version: int | None = None,
    sources: bool = True,
    forget: bool = False,
) -> int:
    """Check every byte of a feature store, and say which recordings must be done again.

    Finds flipped bytes, missing and truncated segments, holes, and sources that are other files now
    than the ones that were read; exits with 1 where it finds any. Orphan segments are listed.

    example: outspike store fsck outspike-data/store

    Args:
        url: the store.
        feature_set: check this one alone.
        version: version of the catalog; the newest where it is left out.
        sources: ask for the etag of every source file; those that are gone are counted.
        forget: take damaged attempts out of the newest version, so that the next extraction does
            those recordings again.
    """
    from outspike.store import cli as tools

    return _say(
        tools.fsck(url, feature_set or None, version=version, forget=forget, sources=sources)
    )


def store_gc(
    url: Url, grace_hours: float = 24.0, keep: tuple[int, ...] = (), dry_run: bool = False
) -> int:
    """Remove segments that no pinned, kept or recent version names.

    example: outspike store gc outspike-data/store --dry-run

    Args:
        url: the store.
        grace_hours: segments younger than this stay, and so does all that was in the newest
            version at some time since; no less than the longest job takes.
        keep: versions of the catalog to spare besides the pinned ones.
        dry_run: tell what would be removed, and remove nothing.
    """
    from outspike.store import cli as tools

    return _say(tools.gc(url, grace_s=grace_hours * 3600, keep=keep, dry_run=dry_run))


def store_compact(url: Url) -> int:
    """Rewrite small and scattered segments into large ones, and drop superseded attempts.

    Readers and writers may go on meanwhile; older versions stay as they are.

    example: outspike store compact outspike-data/store

    Args:
        url: the store.
    """
    from outspike.store import cli as tools

    return _say(tools.compact(url))


def store_lineage(url: Url, name: Name = "", version: int | None = None) -> int:
    """Say where features come from and which runs hold on to them, as JSON.

    examples: outspike store lineage URL ucsd_ped2/Test001; outspike store lineage URL event-pyramid

    Args:
        url: the store.
        name: a recording as DATASET/VIDEO_ID, or a feature set; all feature sets if left out.
        version: version of the catalog; the newest where it is left out.
    """
    from outspike.store import cli as tools

    return _say(tools.lineage(url, name or None, version=version))


def store_unpin(url: Url, run_id: Run) -> int:
    """Release the versions that a run has pinned, so that gc may remove what only it needs.

    example: outspike store unpin outspike-data/store 3f2a...

    Args:
        url: the store.
        run_id: the run, as in the list of pins that store lineage prints.
    """
    from outspike.store import cli as tools

    return _say(tools.unpin(url, run_id))


def _say(result: tuple[str, int]) -> int:
    text, code = result
    print(text)
    return code
