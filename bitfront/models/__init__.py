"""Models as bitfront sees them: loading, layers, text, statistics, the weight bank."""
