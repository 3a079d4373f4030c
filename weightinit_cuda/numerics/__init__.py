"""What an element is: distributions, streams, and how both become numbers. Knows no tensor of a model and no device."""
