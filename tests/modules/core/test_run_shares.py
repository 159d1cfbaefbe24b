import pytest
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.core.run_shares import check_epochs, in_epochs, warn_if_unreached


def test_a_share_below_one_leaves_an_epoch_behind_it():
    assert [in_epochs(11 / 12, epochs) for epochs in (1, 7, 10, 240, 1200)] == [0, 6, 9, 220, 1100]
    assert all(in_epochs(part / 240, 240) == part for part in range(241))


def test_epochs_stay_epochs():
    assert in_epochs(20, 10) == 20
    assert in_epochs(1, 10) == 1
    assert in_epochs(1.0, 10) == 10
    assert in_epochs(0.0, 10) == 0
    assert in_epochs(0.9166666667, 1200) == 1100
    assert in_epochs(0.5, None) == 0


def test_what_is_no_point_of_a_run_is_refused():
    check_epochs(one=0, two=0.5, three=None, four=1100)
    for value in (-1, -0.1, 1.5, 20.0, float("nan")):
        with pytest.raises(InputError, match=f"epoch must be .* but is {value}"):
            check_epochs(epoch=value)


def test_epochs_that_do_not_come_are_warned_of(recwarn):
    for value, epochs in ((0.9, 10), (10, 10), (None, 10), (1100, None)):
        warn_if_unreached(value, epochs, name="drw_epoch", effect="nothing happens")
    assert not recwarn
    with pytest.warns(UserWarning, match="drw_epoch=1100 is never reached in a run of 10 epochs, so nothing happens"):
        warn_if_unreached(1100, 10, name="drw_epoch", effect="nothing happens")
