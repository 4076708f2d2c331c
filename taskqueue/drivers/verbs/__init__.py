"""What the verbs do with the statements, each function within a transaction that its caller holds."""
