"""Every message, receipt and recall; history."""
