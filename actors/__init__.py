"""The rules, and the actors that follow them."""
