"""From a comparison to a classifier: labels of new rows by a fit of a run, in a file or over HTTP."""
