"""Jobs, chosen and shown: filters, labels, columns."""
