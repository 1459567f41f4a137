"""A Spark Connect server that reads Delta tables."""
