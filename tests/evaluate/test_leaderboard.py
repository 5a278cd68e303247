"""The published table: whole, consistent, and never mixed with another rule set."""

from __future__ import annotations

import pytest

from ray_rl.config import RuleSet, UserError
from ray_rl.evaluate.leaderboard import PUBLISHED, RAW_EVENTS, WINNER_AGAIN, is_complete, rank_of, standing


def test_totals_are_the_sums_of_their_cells_but_for_the_row_that_was_published_otherwise() -> None:
    assert [entry.rank for entry in PUBLISHED] == list(range(1, 21))
    totals = [entry.total for entry in PUBLISHED]
    assert totals == sorted(totals, reverse=True)
    wrong = [e.rank for e in PUBLISHED if sum(e.cells.values()) != pytest.approx(e.total, abs=0.02)]
    assert wrong == [17]
    for again in WINNER_AGAIN.values():
        assert sum(again.cells.values()) == pytest.approx(again.total, abs=0.11)


@pytest.mark.parametrize(("total", "rank"), [(-40.0, 1), (-54.57, 1), (-54.58, 2), (-60.0, 7), (-4000.0, 21)])
def test_a_total_takes_the_place_that_its_size_gives(total: float, rank: int) -> None:
    assert rank_of(total) == rank


def test_a_total_under_other_rules_is_not_placed() -> None:
    head = "\n".join(standing(-50.0, 0.4, "head"))
    assert "not comparable" in head
    assert "place" not in head
    assert "-87.7" in head
    leaderboard = standing(-57.0, 0.4, "leaderboard")
    assert leaderboard[0].startswith("place 3 of 21 in the published table (rules leaderboard")
    assert any("CardiffUni" in line for line in leaderboard)


@pytest.mark.parametrize("rules", ["head", "leaderboard"])
def test_a_total_with_raw_events_is_labelled_apart(rules: RuleSet) -> None:
    assert standing(-40.0, 0.4, rules, raw_events=True) == [RAW_EVENTS, *standing(-40.0, 0.4, rules)]


def test_a_cell_that_the_table_lacks_is_named() -> None:
    assert PUBLISHED[0].cell("RedMeanderAgent", 50) == -8.69
    with pytest.raises(UserError, match="no cell B_lineAgent over 60 steps"):
        PUBLISHED[0].cell("B_lineAgent", 60)
    cells = list(PUBLISHED[0].cells)
    assert is_complete(cells)
    assert not is_complete(cells[1:])
