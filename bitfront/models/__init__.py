"""Models as bitfront sees them: loading, layers, text, statistics, and the bank of quantized weights."""
