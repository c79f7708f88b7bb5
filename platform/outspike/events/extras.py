"""Libraries that only some formats need, imported when such a file is met."""

import importlib
from types import ModuleType

from outspike.errors import MediaError


def optional(module: str, purpose: str) -> ModuleType:
    """The module, or an error that says how to get it.

    Raises:
        MediaError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MediaError(
            f"{purpose} needs the package {module.partition('.')[0]}, which is not installed; "
            "install outspike[events].",
            reason="missing_package",
        ) from error
