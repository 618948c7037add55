"""What moves the weights: groups of parameters, their rates, and an Adam that moves word vectors when they are read."""
