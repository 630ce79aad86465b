"""Where external IPs are assigned, looked up again only where that has changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbctl.ground.serving import Directory, Serving
from lbctl.moves.assigned import Assigned
from tests.unit.fake_site import FakeSite, site

LBS = st.sampled_from(["lb-a", "lb-b", "lb-c"])


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), LBS), st.integers(1, 4)), max_size=12))
def test_whatever_moves_comes_and_goes(changes: list[tuple[int, str] | int]) -> None:
    """A number: so many external IPs are there from then on."""
    servings: list[Serving] = list(FakeSite(site(ips=4)).control.ground.external_ips)
    directory = Directory()
    directory.replace(servings)
    assigned = Assigned(directory)
    for change in changes:
        if isinstance(change, int):
            directory.replace(servings[:change])
        else:
            servings[change[0]].assign(change[1], 0.0)
        assert assigned.now() == {serving.address: serving.assigned for serving in directory}
