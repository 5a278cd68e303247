"""The drill: a training is disturbed at random moments and must end with the same bits."""
