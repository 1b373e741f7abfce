"""How a tlim process runs: settings, logs, database, JetStream, outbox, auth, health."""
