"""What every layer of a model says of one text: the words of the vocabulary, those of a task, before and after
calibration, and the nearest training rows."""
