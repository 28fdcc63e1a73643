"""Where data comes from: who can be asked, the Batch API, your own documents, the Hub."""
