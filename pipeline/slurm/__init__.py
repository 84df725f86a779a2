"""Runs units on a SLURM cluster: what sbatch is told, and what a job does on its node."""
