"""What the service does, as data and one model: rules, prices, usage, and its cache."""
