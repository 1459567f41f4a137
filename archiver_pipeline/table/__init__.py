"""The Delta table: its log is the ledger of files and offsets, and every change of it is one fenced commit."""
