"""What a run will need: memory and time, predicted from the model's configuration and a measurement of the machine."""
