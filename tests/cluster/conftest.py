"""Hosts to run jobs on, shared by the tests of a session: starting them takes most of a minute."""

from collections.abc import Iterator

import pytest
from hosts import Lab, laboratory


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three Ray nodes beside an S3 server and MLflow; nothing of it is left after the session."""
    with laboratory(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture
def whole_lab(lab: Lab) -> Lab:
    """The same with as many nodes as at the start, whatever an earlier test took away."""
    lab.refill()
    return lab
