"""The Dagster side: assets, checks, jobs and sensors, each a thin layer over the rest of the package."""
