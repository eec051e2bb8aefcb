"""Parts of the demo model's training: synthetic voices, augmentation, training, evaluation."""
