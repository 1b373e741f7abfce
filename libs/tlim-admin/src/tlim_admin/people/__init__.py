"""What a person may ask of an operator: all that is kept of them, and that it is erased."""
