"""Settings: the environment, `archiver.toml` and defaults; what a wrong value says, and what is secret."""
