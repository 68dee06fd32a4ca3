"""Fine-tuning: the Trainer with recorded training dynamics, kept checkpoints, and states to resume from."""
