"""Helpers of the stories besides tlim_client: fresh people, raw envelopes, a steady flow of messages."""
