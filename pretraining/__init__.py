"""How the built-in model is made: training, validation, and the command that ships it. See README.md."""
