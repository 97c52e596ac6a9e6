"""The pytest fixture `strep_carrier`: a stand-in carrier for each test that asks for it.

    @pytest.mark.strep_carrier(speed=20, network={"loss": 0.01})
    def test_my_application(strep_carrier):
        strep_carrier.webhook_url = "http://127.0.0.1:8080/webhooks"
        ...

The marker takes the settings of the TOML file of `strep simulate`, and is not needed. Nothing is
imported before the fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strep.simulator.local import LocalCarrier


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "strep_carrier(**settings): settings of the fixture strep_carrier"
    )


@pytest.fixture
def strep_carrier(request: pytest.FixtureRequest) -> Iterator[LocalCarrier]:
    """Return a stand-in carrier on free ports, which ends with the test."""
    from strep.simulator.local import LocalCarrier  # noqa: PLC0415 -- for those who use it alone

    marker = request.node.get_closest_marker("strep_carrier")
    settings = {} if marker is None else marker.kwargs
    with LocalCarrier(**{"folder": request.path.parent, **settings}) as carrier:
        yield carrier
