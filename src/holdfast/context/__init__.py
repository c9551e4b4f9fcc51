"""What the model is sent: which messages, what they weigh, and what is mended on the way."""
