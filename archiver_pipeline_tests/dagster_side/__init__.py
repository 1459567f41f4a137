"""Rules of the Dagster side, held against the real thing: its own processes, its own database and a real broker."""
