"""The page on data sets says what the package knows."""

import re
from pathlib import Path

from outspike.datasets import DATASETS


def test_the_page_lists_every_data_set_and_split(repository: Path) -> None:
    """No data set, and no split of one, is left out or made up."""
    text = (repository / "docs" / "datasets.md").read_text()
    listed: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and not set(cells[1]) <= {"-"} and "splits" not in cells[1]:
            name = cells[0].strip("`") or name
            listed.setdefault(name, []).extend(re.findall(r"`([\w-]+)`", cells[1]))
    assert listed == {known: list(source.splits) for known, source in DATASETS.items()}
