"""A user's own code on the real cluster: jobs run what was launched, whatever becomes of it afterwards."""

import shutil

from tests.slurm.site import Site, release

NETS = """
from torch import nn


def build(info):
    print("built as launched")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, info.num_classes))
"""


def test_jobs_run_the_copy_of_a_plug_in_that_was_made_at_the_launch(site: Site) -> None:
    package = site.folder / "mylab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(NETS)
    site.launch(
        "grid.blocks=[{method: gaussian, sigma: 0.25, architecture: 'mylab.nets:build'}]",
        f"plugins=[{package}]",
        "train.epochs=1",
        "+cluster.extra.hold=true",
    )
    (package / "nets.py").write_text(NETS.replace("as launched", "as edited").replace("64", "63"))
    (site.folder / "mylab").rename(site.folder / "other")  # nor need it be there
    release()
    site.await_idle()
    assert set(site.states().values()) == {"done"}, site.logs()
    assert "built as launched" in site.logs()
    assert "built as edited" not in site.logs()
    shutil.rmtree(site.folder / "other")
