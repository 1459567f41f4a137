"""A real Prometheus that scrapes a real exporter."""
