"""What an operator needs besides the services: secrets, NATS users, databases and the bucket of files."""
