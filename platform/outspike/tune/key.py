"""What a trial trains, as a name: equal for equal settings, whoever drew them and whenever.

Folders, outcomes and MLflow runs of trials are called so. A trial that Tune forgot when its driver
was killed is therefore found again when its configuration is drawn again, not trained again.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from outspike.config import TrainConfig
from outspike.errors import ConfigError
from outspike.train.step import training_hash
from outspike.tune.space import override

#: Beside the settings of a member of a population: whose weights it goes on with, and up to where.
PARENT, UNTIL = "outspike.parent", "outspike.until"


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, int | None]:
    """Settings, the key of the trial whose weights are taken over, and the last step."""
    settings = {name: v for name, v in values.items() if name not in (PARENT, UNTIL)}
    return settings, values.get(PARENT), values.get(UNTIL)


def key_of(base: TrainConfig, values: Mapping[str, Any]) -> str:
    """Name of what ``values`` make of the config: settings, weights it starts from, last step."""
    settings, parent, until = split(values)
    try:
        told = training_hash(override(base, settings))
    except ConfigError:  # values that do not go together: the trial says so when it starts
        told = json.dumps(settings, sort_keys=True)
    if until is not None:
        told = f"{told} from {parent} to {until}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]
