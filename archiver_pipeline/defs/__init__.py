"""The Dagster side: assets, checks, jobs and sensors, each a thin layer over the rest of the package."""

import gc
import sys

import dagster  # noqa: F401, loaded before what follows

# Its modules are some hundred thousand objects that stay. Every full collection while a run starts would look at each
# of them again, a tenth of a start; and `dagster job execute` would take half a second to take them apart at exit.
if "duckdb" not in sys.modules:  # It would complain at exit that it could not be taken apart itself.
    gc.freeze()
