"""From files to token stores: sources, samples, templates, splits. Free of torch."""
