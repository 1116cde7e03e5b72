"""What was looked up about models: the model table and the prices, each with its source."""
