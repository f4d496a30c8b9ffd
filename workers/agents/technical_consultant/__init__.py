"""Technical consultant: questions about several things at once, each looked up."""
