"""What is found by looking into files, in worker processes that may die of them."""
