"""Where the archive lies, a folder or a bucket, and all that is done with files there."""
