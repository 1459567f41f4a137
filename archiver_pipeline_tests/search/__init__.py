"""A real OpenSearch for the tests."""
