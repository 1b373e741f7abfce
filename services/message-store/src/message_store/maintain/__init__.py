"""Commands for the operator: list and add partitions, and remove what is older than the policy keeps."""
