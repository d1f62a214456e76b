"""What differs between a Cloudera Machine Learning session and a laptop, and nothing else."""
