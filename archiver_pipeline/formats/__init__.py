"""Payloads in the formats of a Schema Registry: found in frames, their schemas fetched, decoded to JSON."""
