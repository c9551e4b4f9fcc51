"""How sessions and events are found: lists, searches, references, watches."""
