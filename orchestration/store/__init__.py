"""Artifacts on disk or in a bucket: layout, commits, leases, checksums."""
