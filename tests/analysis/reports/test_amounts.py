import pytest

from analysis.reports.amounts import with_error


@pytest.mark.parametrize(
    ("value", "error", "sign", "text"),
    [
        (1.0, 0.071, "", "1.000 ± 0.071"),
        (-3.398e-5, 0.00017, "+", "-0.00003 ± 0.00017"),
        (0.134, 0.0804, "+", "+0.134 ± 0.080"),
        (2.345e-7, 1.2e-7, "+", "+2.3e-07 ± 1.2e-07"),
        (0.69047, None, "", "0.6905"),
        (0.0, 0.0, "+", "+0"),
    ],
)
def test_numbers_show_what_their_error_leaves(value, error, sign, text):
    assert with_error(value, error, sign) == text
