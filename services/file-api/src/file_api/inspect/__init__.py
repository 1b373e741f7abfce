"""Looking into files, in worker processes: a bad file may kill its worker, never the service."""
