"""What follows the archive: each keeps its position where its results are, and one more of them is one more file."""
