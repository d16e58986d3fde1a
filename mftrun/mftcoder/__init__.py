"""MFTCoder's training configs, translated into ours."""
