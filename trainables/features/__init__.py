"""Features: functions of the market's bars, listed in one table (`registry`) and picked by schema (`schemas`)."""
