"""Tools: what they are, whether they may be called now, what their calls came to."""
