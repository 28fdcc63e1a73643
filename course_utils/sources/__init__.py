"""Where data comes from and goes to: who can be asked, batches, your own documents, the Hub."""
