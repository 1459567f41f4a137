"""Runs of the archiver that are killed, frozen and started again, and the proof that nothing is lost or doubled."""
