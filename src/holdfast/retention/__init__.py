"""What is kept for how long: policies, plans, the trash and its history."""
