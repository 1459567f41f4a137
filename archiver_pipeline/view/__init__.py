"""The DuckDB file: its views and macros, brought up to date by what commits add."""
