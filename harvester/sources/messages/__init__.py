"""Messages of queues: what they name, and the trigger that takes them."""
