"""Studies: methods × data × seeds × options as ordinary `fit` commands, run in parallel, resumed and tabulated."""
