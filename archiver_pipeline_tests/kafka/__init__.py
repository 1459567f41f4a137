"""A real Apache Kafka for the tests, and plain helpers that write to it and read it back."""
