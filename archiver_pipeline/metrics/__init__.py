"""Metrics for Prometheus: what is measured, where it is taken from, and how it is served."""
