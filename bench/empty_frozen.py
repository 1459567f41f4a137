"""The empty job with Dagster's modules frozen as ours are: what of the difference is start-up, and what is exit."""

import gc

from bench.empty import defs as defs

# As `archiver_pipeline.defs` does: at exit they are left as they are, which saves half a second.
gc.freeze()
