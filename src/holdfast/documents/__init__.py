"""JSON and Markdown beside the sessions, and the records of agents among them."""
