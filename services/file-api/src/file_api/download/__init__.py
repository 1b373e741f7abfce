"""How bytes go out: answers with ranges and conditions, and signed URLs."""
