"""Lightning callbacks that watch, measure or write files; none of them changes the training."""
