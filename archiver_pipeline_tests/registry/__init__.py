"""Tests of the Schema Registry's formats, on a real registry."""
