"""MSF: multi-scale spiking fusion of event features (``ucf_crime_dvs_msf.md`` section 5)."""

from outspike.detectors.msf.detector import Msf

__all__ = ["Msf"]
