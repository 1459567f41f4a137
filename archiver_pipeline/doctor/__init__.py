"""Is everything well that the archiver needs? Each module looks at one thing; `checkup.py` has them all."""
