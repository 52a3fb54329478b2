"""The event log: append, read, prove. It has never heard of actors."""
