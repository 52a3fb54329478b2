"""The machine that slots are on: isolation, processes, files, terminals, and the executor that runs calls in them."""
