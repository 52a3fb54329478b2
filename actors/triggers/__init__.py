"""What connects runs with what happens: topics on which events are published, and who is told of them."""
