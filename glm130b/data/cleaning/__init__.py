"""Documents that are worth training on: quality filters and near-duplicate removal, before ``prepare``."""
