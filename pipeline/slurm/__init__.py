"""Runs units on a SLURM cluster: submission with sbatch, and the work of a job on its node."""
