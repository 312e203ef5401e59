"""Classification: every human reply gets its outcome, by the candidate's own choice or by the model."""
