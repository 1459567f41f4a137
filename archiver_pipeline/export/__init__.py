"""Messages of the archive as files for others: JSON lines, CSV, ORC and Parquet, whole or not at all."""
