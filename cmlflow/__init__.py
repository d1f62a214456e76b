"""What the lessons share: what differs between CML and a laptop, checks, and their messages."""
