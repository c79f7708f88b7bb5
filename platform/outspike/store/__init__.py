"""Feature store, format 1: zarr v3 arrays and a Delta Lake catalog (``docs/store.md``)."""
