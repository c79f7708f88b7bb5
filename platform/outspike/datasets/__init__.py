"""Which recordings exist, what people say of them, and where their files lie.

``load(name, root, split)`` answers with a :class:`Manifest`: the recordings found under a local
folder or ``s3://`` prefix, what is missing, and what is known to be wrong with the split.
"""

from outspike.datasets.catalog import DATASETS, load
from outspike.datasets.manifest import Manifest

__all__ = ["DATASETS", "Manifest", "load"]
