"""Tests of what follows the archive; the conformance suite holds for every follower."""
