"""Every planted mistake is named by its property, and sound losses get no complaint."""

import pytest

from figures.audit.auditor import assert_loss, audit
from tests.figures.audit.planted import PLANTED, SOUND_ONES


@pytest.mark.parametrize("name", PLANTED)
def test_a_mistake_is_named(name: str) -> None:
    case = PLANTED[name]
    found = {f.name for f in audit(case.loss, case.advantage, **case.declared).defects}
    assert found & set(case.names), f"{name}: wanted one of {case.names}, got {found}"


@pytest.mark.parametrize("name", SOUND_ONES)
def test_sound_losses_get_no_complaint(name: str) -> None:
    case = SOUND_ONES[name]
    assert_loss(case.loss, case.advantage, **case.declared)
