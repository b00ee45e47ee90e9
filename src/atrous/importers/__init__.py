"""Foreign formats and projects: their files read without their software, their weights in our models."""
