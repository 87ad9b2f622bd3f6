"""What the models are: architectures, quantizations and the catalogue that names them."""
