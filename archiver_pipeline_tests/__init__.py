"""Tests of the archiver; the folders mirror the package."""
