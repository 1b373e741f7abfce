"""What the stories need beyond tlim_client: fresh people, raw envelopes, a steady flow of messages."""
