"""Steps of a layer study: what is read of every layer, its scores, and the steering check."""
