"""What runs share, what they are for, and whom they talk with: actors of their own."""
