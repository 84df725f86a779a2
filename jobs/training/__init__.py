"""The parts of a training: batches, steps, schedules, several processes."""
