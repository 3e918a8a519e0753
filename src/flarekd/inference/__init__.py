"""What both networks share in inference: accumulate windows, stream logits to labels."""
