"""What runs explanations and metrics over whole data sets, in batches."""
