"""Rewrites of hours, each one fenced commit: sealing, backfill, erasure."""
