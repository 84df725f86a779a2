# make slurm-up      a SLURM cluster on this machine (Debian or Ubuntu, root), see tests/slurm/cluster
# make test-slurm    the tests that need it
# make slurm-down    stop it
.PHONY: slurm-up test-slurm slurm-down

slurm-up:
	tests/slurm/cluster up

test-slurm: $(VENV)/installed
	. "$$(tests/slurm/cluster env)" && $(BIN)/python -m pytest tests/slurm

slurm-down:
	tests/slurm/cluster down
