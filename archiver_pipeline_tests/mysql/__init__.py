"""A real MariaDB for tests."""
