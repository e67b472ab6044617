"""`rollout.name=hf`: responses drawn with the Hugging Face model itself, on a CPU or a GPU. Start at rollout.py."""
