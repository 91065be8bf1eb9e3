"""The networks known by name, their published figures, and where their pretrained weights are."""
