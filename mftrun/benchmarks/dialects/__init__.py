"""What programs of HumanEvalPack look like in each language, and what they need around them."""
