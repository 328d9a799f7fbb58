"""The cold tier: immutable Parquet batches, and manifests that say which of them count."""
