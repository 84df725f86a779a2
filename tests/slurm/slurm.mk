# make slurm-up      SLURM clusters on this machine (Debian or Ubuntu, root), see tests/slurm/cluster
# make test-slurm    the tests that need them
# make slurm-down    stop them
.PHONY: slurm-up test-slurm slurm-down

# Two, because the tests mostly wait; each worker of pytest has its own.
SLURM_CLUSTERS := 0 1

slurm-up slurm-down:
	for number in $(SLURM_CLUSTERS); do \
	    SLURM_TEST_CLUSTER=$$number tests/slurm/cluster $(@:slurm-%=%) || exit; \
	done

test-slurm: $(VENV)/installed
	. "$$(tests/slurm/cluster env)" && export SLURM_TEST_CLUSTERS=$(words $(SLURM_CLUSTERS)) && \
	    $(BIN)/python -m pytest --numprocesses $(words $(SLURM_CLUSTERS)) --dist worksteal tests/slurm
