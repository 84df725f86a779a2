from collections.abc import Iterator

import pytest

from analysis import figures


@pytest.fixture(scope="package", autouse=True)
def _coarse_figures() -> Iterator[None]:
    """No test looks at pixels, and most of the time of a figure goes into them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "PNG_DPI", 30)
        yield
