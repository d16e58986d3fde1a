"""From the nlls of a global batch to one scalar. Free of models, ranks and configuration tools."""
