"""Other ways to data: the Batch API, answers out of your own documents, the Hub."""
