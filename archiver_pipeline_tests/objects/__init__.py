"""Archives in buckets, on a real server that speaks the language of S3."""
