"""Random workflows of everything that there is, killed anywhere, and killed again: they end as if nothing had been.

Compared are how all runs end, what became true outside and when, and each end of a step or a wait with its time.
`PERDURE_PROGRAMS` says how many workflows are drawn; with it the process dies at every border of each of them.
"""

import os
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import Settings
from tests.support.lives import Script, borders, compare, crashed, live
from tests.support.programs import Program, programs
from tests.support.runs import play

EXAMPLES = int(os.environ.get("PERDURE_PROGRAMS", "0"))
CRASHES = 0 if EXAMPLES else 8
"""Of one workflow; 0: one at every border."""

settings_drawn = st.sampled_from([timedelta(seconds=10), timedelta(days=1)]).map(
    lambda park_after: Settings(park_after=park_after, idle_after=timedelta(days=1))
)
scripts = st.one_of(
    st.just(Script()),
    st.just(Script()),
    st.builds(Script, cancel=st.sampled_from([0, 1, 4, 10, 30, 70, 150])),
    st.builds(Script, deadline=st.sampled_from([1, 6, 20, 60, 200])),
)


async def die_everywhere(program: Program, script: Script, chosen: Settings, chance: Random) -> None:
    whole = await live(program, script, chosen)
    places = borders(whole)
    for position in sorted(chance.sample(places, min(CRASHES or len(places), len(places)))):
        once = await crashed(whole, position, program, script, chosen, chance)
        compare(whole, once, f"after a crash at {position}")
        if later := borders(once, position + 1):
            again = chance.choice(later)
            twice = await crashed(once, again, program, script, chosen, chance)
            compare(whole, twice, f"after crashes at {position} and {again}")


@settings(max_examples=EXAMPLES or 15)
@given(program=programs(), script=scripts, chosen=settings_drawn, seed=st.integers(0, 2**32))
def test_a_workflow_that_dies_anywhere_comes_to_the_same(
    program: Program, script: Script, chosen: Settings, seed: int
) -> None:
    async def scenario() -> None:
        await die_everywhere(program, script, chosen, Random(seed))

    play(scenario)
