"""Event-sourced actors on one event loop: mailboxes, decide and evolve, activation, supervision."""
