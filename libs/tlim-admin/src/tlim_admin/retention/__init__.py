"""Commands that keep the log small: `retention` removes what is old, `partitions` shows and adds parts of it."""
