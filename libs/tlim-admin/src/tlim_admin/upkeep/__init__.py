"""Commands for what an operator does seldom: after JetStream was lost, for a new search index, for new token keys."""
