"""What operators see: how much there is, what goes wrong, and the way of single messages."""
