"""What is appended, by kind: steps, tasks, reports, usage; how an event is named, and its secrets masked."""
