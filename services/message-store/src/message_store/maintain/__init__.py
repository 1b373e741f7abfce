"""What an operator runs now and then: partitions shown and added, and what is older than the policy keeps removed."""
