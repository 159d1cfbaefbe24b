"""Partition of any network into local units."""

from .cuts import LocalUnit, Partition, local_units, partition

__all__ = ["LocalUnit", "Partition", "local_units", "partition"]
