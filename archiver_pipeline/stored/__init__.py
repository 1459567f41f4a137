"""What is in the archive, read and checked: chosen, measured, in order, against itself and against Kafka."""
