"""Ways in: entry points, subscriptions to events, schedules."""
