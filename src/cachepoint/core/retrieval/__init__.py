"""Retrieved documents in an order and a history in a shape that keep the prefix."""
